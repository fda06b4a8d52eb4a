package connect

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// MaxMessage is the largest request message in bytes.
const MaxMessage = 4 << 20

// maxPending bounds what all large request messages may hold in memory together.
const maxPending = 32 << 20

// smallMessage is the size up to which a message is not counted against maxPending.
const smallMessage = 64 << 10

const defaultKeepalive = 90 * time.Second

var pending atomic.Int64

// budgeted reads at most limit bytes and hands them to use; large messages count against the common budget meanwhile.
func budgeted(source io.Reader, limit int64, use func([]byte) error) error {
	var body bytes.Buffer
	taken := int64(0)
	defer func() { pending.Add(-taken) }()
	for {
		read, err := io.CopyN(&body, source, smallMessage)
		if err != nil && !errors.Is(err, io.EOF) {
			return Errorf(InvalidArgument, "the request body ended early")
		}
		if int64(body.Len()) > limit {
			return Errorf(ResourceExhausted, "the request message is larger than %d bytes", limit)
		}
		if read < smallMessage {
			return use(body.Bytes())
		}
		taken += smallMessage
		if pending.Add(smallMessage) > maxPending {
			return Errorf(ResourceExhausted, "too many large requests at once")
		}
	}
}

func decode(body []byte, message any) error {
	if len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, message); err != nil {
		var known *Error
		if errors.As(err, &known) {
			return known
		}
		return Errorf(InvalidArgument, "the request is not valid JSON for this call: %s", err)
	}
	return nil
}

// readEnvelope decodes the next enveloped message; io.EOF means that there is none.
func readEnvelope(source io.Reader, message any) error {
	var head [5]byte
	if _, err := io.ReadFull(source, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return Errorf(InvalidArgument, "the request body ended within an envelope")
	}
	if head[0] != 0 {
		return Errorf(InvalidArgument, "envelope flags %d are not supported", head[0])
	}
	size := int64(binary.BigEndian.Uint32(head[1:]))
	if size > MaxMessage {
		return Errorf(ResourceExhausted, "the request message is larger than %d bytes", MaxMessage)
	}
	return budgeted(io.LimitReader(source, size), MaxMessage, func(body []byte) error {
		if int64(len(body)) < size {
			return Errorf(InvalidArgument, "the request body ended within an envelope")
		}
		return decode(body, message)
	})
}

// Timeout returns the caller's time limit; zero means none.
func Timeout(r *http.Request) (time.Duration, error) {
	text := r.Header.Get("Connect-Timeout-Ms")
	if text == "" {
		return 0, nil
	}
	ms, err := strconv.ParseUint(text, 10, 64)
	if err != nil || len(text) > 10 {
		return 0, Errorf(InvalidArgument, "Connect-Timeout-Ms is not a number of at most 10 digits")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// Keepalive returns after how much silence the caller of a stream wants a sign of life.
func Keepalive(r *http.Request) time.Duration {
	seconds, err := strconv.ParseUint(r.Header.Get("Keepalive-Ping-Interval"), 10, 16)
	if err != nil || seconds == 0 {
		return defaultKeepalive
	}
	return time.Duration(seconds) * time.Second
}

// limited returns the request with its caller's time limit.
func limited(r *http.Request) (*http.Request, context.CancelFunc, error) {
	timeout, err := Timeout(r)
	if err != nil {
		return r, nil, err
	}
	if timeout == 0 {
		return r, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return r.WithContext(ctx), cancel, nil
}
