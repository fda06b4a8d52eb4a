package process

import (
	"bytes"
	"math/rand"
	"sync"
	"testing"
	"time"
)

// drainAll reads until the output is finished and returns what came, by kind.
func drainAll(t *testing.T, o *output, r *reader, pause time.Duration) map[kind][]byte {
	t.Helper()
	got := make(map[kind][]byte)
	buffer := make([]byte, 5000)
	for {
		k, n, found := o.next(r, buffer)
		switch found {
		case took:
			got[k] = append(got[k], buffer[:n]...)
			time.Sleep(pause)
		case nothingYet:
			<-r.wake
		case finished:
			return got
		case leftBehind:
			t.Error("a reader was dropped")
			return got
		}
	}
}

func TestReadersGetAllThatIsWritten(t *testing.T) {
	o := newOutput()
	var readers []*reader
	for range 3 {
		r, err := o.attach(func() {})
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	wrote := make(map[kind][]byte)
	source := rand.New(rand.NewSource(1))
	go func() {
		for range 2000 {
			piece := make([]byte, 1+source.Intn(3000))
			source.Read(piece)
			k := kind(source.Intn(2))
			wrote[k] = append(wrote[k], piece...)
			o.write(k, piece)
		}
		o.finish()
	}()
	var all sync.WaitGroup
	for i, r := range readers {
		all.Go(func() {
			got := drainAll(t, o, r, time.Duration(i)*50*time.Microsecond)
			if !bytes.Equal(got[stdout], wrote[stdout]) || !bytes.Equal(got[stderr], wrote[stderr]) {
				t.Errorf("reader %d got something else", i)
			}
		})
	}
	all.Wait()
	if len(o.ring) != keptOutput {
		t.Fatalf("the ring has %d bytes", len(o.ring))
	}
}

func TestWithoutReadersTheLatestOutputStays(t *testing.T) {
	o := newOutput()
	o.write(stdout, bytes.Repeat([]byte("a"), keptOutput))
	o.write(stderr, []byte("latest"))
	o.finish()
	r, _ := o.attach(func() {})
	got := drainAll(t, o, r, 0)
	if len(got[stdout]) != keptOutput-6 || string(got[stderr]) != "latest" {
		t.Fatalf("%d bytes of stdout and %q are kept", len(got[stdout]), got[stderr])
	}
}

func TestChangesOfKindAreBounded(t *testing.T) {
	o := newOutput()
	for i := range 3 * maxSegments {
		o.write(kind(i%2), []byte{byte(i)})
	}
	if len(o.segments) > maxSegments || len(o.ring) > 2*firstOutput {
		t.Fatalf("%d segments, %d bytes", len(o.segments), len(o.ring))
	}
	r, _ := o.attach(func() {})
	o.finish()
	got := drainAll(t, o, r, 0)
	if kept := len(got[stdout]) + len(got[stderr]); kept != maxSegments {
		t.Fatalf("%d bytes are kept", kept)
	}
}

func TestASilentWriterHoldsNoMemory(t *testing.T) {
	before := kept.Load()
	o := newOutput()
	if o.ring != nil {
		t.Fatal("there is a ring before there is output")
	}
	o.write(stdout, []byte("x"))
	if kept.Load() != before+firstOutput {
		t.Fatalf("%d bytes are counted", kept.Load()-before)
	}
	o.finish()
	o.forget()
	if kept.Load() != before || o.ring != nil {
		t.Fatal("the memory was not given back")
	}
}

func TestTheKeptOutputOfAllIsBounded(t *testing.T) {
	before := kept.Load()
	kept.Store(keptByAll - firstOutput)
	defer kept.Store(before)
	first, second := newOutput(), newOutput()
	first.write(stdout, make([]byte, keptOutput))
	second.write(stdout, make([]byte, keptOutput))
	if len(first.ring) != firstOutput || len(second.ring) != firstOutput {
		t.Fatalf("rings of %d and %d bytes", len(first.ring), len(second.ring))
	}
	r, _ := second.attach(func() {})
	second.finish()
	if got := drainAll(t, second, r, 0); len(got[stdout]) != firstOutput {
		t.Fatalf("%d bytes are kept", len(got[stdout]))
	}
}

func TestAReaderOfForgottenOutputStillFinishes(t *testing.T) {
	o := newOutput()
	o.write(stdout, []byte("late"))
	r, _ := o.attach(func() {})
	o.finish()
	o.forget()
	if got := drainAll(t, o, r, 0); string(got[stdout]) != "late" {
		t.Fatalf("it got %q", got[stdout])
	}
	o.detach(r)
	if o.ring != nil {
		t.Fatal("the memory was not given back")
	}
}
