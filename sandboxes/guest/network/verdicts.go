package network

import (
	"errors"
	"sync"
	"time"
)

const (
	// verdictLife is how long a verdict holds, counted from the question: a policy may change at any time, while programs
	// ask for one name several times in a row.
	verdictLife = 500 * time.Millisecond
	maxVerdicts = 256
	// Questions a second, and at once, that the host is asked for one sandbox.
	questionRate  = 100
	questionBurst = 200
	// maxDelay is how long a question may wait for its turn.
	maxDelay = 2 * time.Second
)

var errTooManyQuestions = errors.New("too many names are asked for")

// verdicts remembers for a moment whether names may be resolved, and asks once for all that want to know at once.
type verdicts struct {
	ask   func(name string) (bool, error)
	mu    sync.Mutex
	known map[string]*verdict
	turn  time.Time
}

type verdict struct {
	asked   time.Time
	done    chan struct{}
	allowed bool
	err     error
}

func newVerdicts(ask func(string) (bool, error)) *verdicts {
	return &verdicts{ask: ask, known: map[string]*verdict{}}
}

// of returns the verdict on a name.
func (v *verdicts) of(name string) (bool, error) {
	v.mu.Lock()
	now := time.Now()
	known, is := v.known[name]
	if is && now.Sub(known.asked) < verdictLife {
		v.mu.Unlock()
		<-known.done
		return known.allowed, known.err
	}
	delay := v.delay(now)
	if delay > maxDelay {
		v.mu.Unlock()
		return false, errTooManyQuestions
	}
	v.makeRoom(now)
	fresh := &verdict{asked: now.Add(delay), done: make(chan struct{})}
	v.known[name] = fresh
	v.mu.Unlock()
	time.Sleep(delay)
	fresh.allowed, fresh.err = v.ask(name)
	close(fresh.done)
	if fresh.err != nil {
		v.forget(name, fresh)
	}
	return fresh.allowed, fresh.err
}

// delay takes the next turn and returns how far away it is; a turn that is too far away is not taken.
func (v *verdicts) delay(now time.Time) time.Duration {
	const step = time.Second / questionRate
	if earliest := now.Add(-step * questionBurst); v.turn.Before(earliest) {
		v.turn = earliest
	}
	delay := max(0, v.turn.Add(step).Sub(now))
	if delay <= maxDelay {
		v.turn = v.turn.Add(step)
	}
	return delay
}

// makeRoom lets old verdicts go when there are many, and any of the others if that is not enough.
func (v *verdicts) makeRoom(now time.Time) {
	if len(v.known) < maxVerdicts {
		return
	}
	for name, old := range v.known {
		if now.Sub(old.asked) >= verdictLife {
			delete(v.known, name)
		}
	}
	for name := range v.known {
		if len(v.known) < maxVerdicts {
			return
		}
		delete(v.known, name)
	}
}

// forget lets go of a question that failed, so that the next one is asked at once.
func (v *verdicts) forget(name string, failed *verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known[name] == failed {
		delete(v.known, name)
	}
}
