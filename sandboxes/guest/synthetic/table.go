// Package synthetic gives names addresses that mean nothing outside the sandbox, so that a connection to such an address
// tells the name that it is for.
package synthetic

import (
	"container/list"
	"encoding/binary"
	"net/netip"
	"sync"
)

const (
	// maxNames bounds the table; the name that was used longest ago goes first.
	maxNames = 4096
	// firstFree is 198.18.1.0: the addresses below are for names of the platform's own.
	firstFree = 198<<24 | 18<<16 | 1<<8
	// last is 198.19.255.255. A forgotten address is given to another name only after all others have been.
	last = 198<<24 | 19<<16 | 255<<8 | 255
)

// Range holds all addresses that names can get.
var Range = netip.MustParsePrefix("198.18.0.0/15")

// Table knows the addresses of names.
type Table struct {
	fixed     map[string]netip.Addr
	mu        sync.Mutex
	byName    map[string]*list.Element
	byAddress map[netip.Addr]*list.Element
	// recent holds entries, the one used last at its front.
	recent list.List
	next   uint32
}

type entry struct {
	name    string
	address netip.Addr
}

// New makes a table in which some names have addresses from the start.
func New(fixed map[string]netip.Addr) *Table {
	return &Table{fixed: fixed, byName: map[string]*list.Element{}, byAddress: map[netip.Addr]*list.Element{}, next: firstFree}
}

// Address returns the address of a name, which gets one if it has none.
func (t *Table) Address(name string) netip.Addr {
	if address, is := t.fixed[name]; is {
		return address
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, is := t.byName[name]; is {
		t.recent.MoveToFront(known)
		return known.Value.(entry).address
	}
	if t.recent.Len() == maxNames {
		oldest := t.recent.Remove(t.recent.Back()).(entry)
		delete(t.byName, oldest.name)
		delete(t.byAddress, oldest.address)
	}
	added := t.recent.PushFront(entry{name, t.free()})
	address := added.Value.(entry).address
	t.byName[name], t.byAddress[address] = added, added
	return address
}

// Name returns the name that an address was given to.
func (t *Table) Name(address netip.Addr) (string, bool) {
	for name, its := range t.fixed {
		if its == address {
			return name, true
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known, is := t.byAddress[address]
	if !is {
		return "", false
	}
	t.recent.MoveToFront(known)
	return known.Value.(entry).name, true
}

func (t *Table) free() netip.Addr {
	for {
		var bytes [4]byte
		binary.BigEndian.PutUint32(bytes[:], t.next)
		address := netip.AddrFrom4(bytes)
		if t.next++; t.next > last {
			t.next = firstFree
		}
		if _, taken := t.byAddress[address]; !taken {
			return address
		}
	}
}
