package network

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/guest/synthetic"
)

// host answers for the host's decisions.
type host struct {
	asked   atomic.Int32
	allowed atomic.Bool
	err     error
	takes   time.Duration
}

func (h *host) decide(string) (bool, error) {
	h.asked.Add(1)
	time.Sleep(h.takes)
	return h.allowed.Load(), h.err
}

func (h *host) expect(t *testing.T, asked int32) {
	t.Helper()
	if got := h.asked.Load(); got != asked {
		t.Fatalf("the host was asked %d times, not %d", got, asked)
	}
}

func TestAVerdictHoldsForAMomentOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		v := newVerdicts(h.decide)
		for range 5 {
			if allowed, err := v.of("api.test"); allowed || err != nil {
				t.Fatal(allowed, err)
			}
		}
		h.expect(t, 1)
		h.allowed.Store(true)
		time.Sleep(verdictLife)
		if allowed, err := v.of("api.test"); !allowed || err != nil {
			t.Fatal(allowed, err)
		}
		h.expect(t, 2)
	})
}

func TestTheSameQuestionAtOnceIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{takes: 100 * time.Millisecond}
		h.allowed.Store(true)
		v := newVerdicts(h.decide)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if allowed, err := v.of("api.test"); !allowed || err != nil {
					t.Error(allowed, err)
				}
			})
		}
		all.Wait()
		h.expect(t, 1)
	})
}

func TestAFailureIsForgottenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{err: errors.New("away")}
		v := newVerdicts(h.decide)
		for range 3 {
			if allowed, err := v.of("api.test"); allowed || err != h.err {
				t.Fatal(allowed, err)
			}
		}
		h.expect(t, 3)
	})
}

func TestQuestionsAreAskedAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		v := newVerdicts(h.decide)
		var all sync.WaitGroup
		var refused atomic.Int32
		begun := time.Now()
		for i := range 1000 {
			all.Go(func() {
				if _, err := v.of(fmt.Sprint(i)); err == errTooManyQuestions {
					refused.Add(1)
				}
			})
		}
		all.Wait()
		if took := time.Since(begun); took > maxDelay {
			t.Fatalf("it took %s", took)
		}
		h.expect(t, questionBurst+questionRate*int32(maxDelay/time.Second))
		if refused.Load() != 1000-h.asked.Load() || len(v.known) > maxVerdicts {
			t.Fatalf("%d were refused, %d are kept", refused.Load(), len(v.known))
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"\x03api\x04test\x00", "\x031.1\x02::\x07in-addr\x04arpa\x00", "\x03::1\x07in-addr\x04arpa\x00",
		"\x011\x010\x0218\x03198\x07in-addr\x04arpa\x00", "\x00", "\x05proxy\x08internal\x00"} {
		for _, kind := range []byte{1, 12, 28} {
			f.Add(append(append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name...), 0, kind, 0, 1))
		}
	}
	r := &resolver{names: synthetic.New(platform), verdicts: newVerdicts(func(string) (bool, error) { return true, nil })}
	f.Fuzz(func(t *testing.T, message []byte) {
		// Each question has a turn of its own.
		r.verdicts.turn = time.Time{}
		if answer := r.answer(message); answer != nil && (len(answer) < 12 || len(answer) > 512) {
			t.Fatalf("%x is answered with %x", message, answer)
		}
	})
}
