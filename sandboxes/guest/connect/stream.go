package connect

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	envelopeHead  = 5
	flagEndStream = 2
)

var messages = sync.Pool{New: func() any { b := make([]byte, 0, 48<<10); return &b }}

// Stream sends the messages of one streaming answer.
type Stream struct {
	writer     http.ResponseWriter
	controller *http.ResponseController
}

// Send appends one message with build and sends it at once. An error means that the caller went away.
func (s *Stream) Send(build func([]byte) []byte) error {
	if err := s.Queue(build); err != nil {
		return err
	}
	return s.Flush()
}

// Queue appends one message with build; it leaves with the next message that is sent, or with Flush.
func (s *Stream) Queue(build func([]byte) []byte) error { return s.write(0, build) }

// Flush sends what is queued.
func (s *Stream) Flush() error { return s.controller.Flush() }

// Cut makes a send that is stuck on a slow caller fail at the given time; nothing can be sent after it.
func (s *Stream) Cut(at time.Time) { s.controller.SetWriteDeadline(at) }

func (s *Stream) write(flags byte, build func([]byte) []byte) error {
	buffer := messages.Get().(*[]byte)
	defer messages.Put(buffer)
	message := build((*buffer)[:envelopeHead])
	message[0] = flags
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-envelopeHead))
	*buffer = message[:0]
	_, err := s.writer.Write(message)
	return err
}

func (s *Stream) end(err error) {
	trailer := struct {
		Error *Error `json:"error,omitempty"`
	}{}
	if err != nil {
		trailer.Error = AsError(err)
	}
	body, _ := json.Marshal(trailer)
	if s.write(flagEndStream, func(b []byte) []byte { return append(b, body...) }) == nil {
		s.Flush()
	}
}

func openStream(w http.ResponseWriter) *Stream {
	stream := &Stream{writer: w, controller: http.NewResponseController(w)}
	// Without full duplex net/http would wait for the rest of the request before the first answer.
	stream.controller.EnableFullDuplex()
	w.Header().Set("Content-Type", "application/connect+json")
	w.WriteHeader(http.StatusOK)
	return stream
}

// ServerStream makes a handler of a function that answers one request with a stream.
// Every error, early or late, is told in the end-of-stream message of a 200 answer.
func ServerStream[Request any](serve func(r *http.Request, request *Request, stream *Stream) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !accepts(w, r, "application/connect+json") {
			return
		}
		stream := openStream(w)
		var request Request
		err := readEnvelope(r.Body, &request)
		if errors.Is(err, io.EOF) {
			err = Errorf(InvalidArgument, "the request has no message")
		}
		r, wait := readRest(r)
		defer wait()
		if err == nil {
			err = serve(r, &request, stream)
		}
		stream.end(err)
	})
}

// ClientStream makes a handler of a function that takes many messages and answers with one empty message.
// next decodes the next message and returns io.EOF after the last one.
func ClientStream(serve func(r *http.Request, next func(message any) error) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !accepts(w, r, "application/connect+json") {
			return
		}
		r, cancel, err := limited(r)
		if err == nil {
			defer cancel()
			err = serve(r, func(message any) error { return readEnvelope(r.Body, message) })
		}
		stream := openStream(w)
		_, wait := readRest(r)
		defer wait()
		if err == nil {
			stream.Send(func(b []byte) []byte { return append(b, "{}"...) })
		}
		stream.end(err)
	})
}
