package watch

import (
	"syscall"
	"time"
)

// directory is a watched directory and where it lies now.
type directory struct {
	watch    int
	device   uint64
	name     string
	parent   *directory
	children map[string]*directory
	// unseen says that it had to be left before it was looked through.
	unseen bool

	// announced are the names that a scan has reported, until the changes that were queued by the end of the scan are
	// through: of those the kernel's own reports are left out.
	announced map[string]*announcement
	horizon   int64

	// away says since when a directory that was renamed has not been found again; its changes are held meanwhile.
	away time.Time
	held []change
}

func (d *directory) attach(parent *directory, name string) {
	d.detach()
	d.parent, d.name, d.away = parent, name, time.Time{}
	if parent.children == nil {
		parent.children = make(map[string]*directory)
	}
	parent.children[name] = d
}

// detach takes a directory from its parent's names. It still knows its parent, for changes that come late.
func (d *directory) detach() {
	if d.parent != nil && d.parent.children[d.name] == d {
		delete(d.parent.children, d.name)
	}
}

// below returns the path of a name in the directory, relative to the watched one.
func (d *directory) below(name string) string {
	for ; d.parent != nil; d = d.parent {
		name = d.name + "/" + name
	}
	return name
}

// lost returns the directory, this one or one above it, that was renamed and has not been found again.
func (d *directory) lost() *directory {
	for ; d != nil; d = d.parent {
		if !d.away.IsZero() {
			return d
		}
	}
	return nil
}

func (d *directory) isWithin(other *directory) bool {
	for ; d != nil; d = d.parent {
		if d == other {
			return true
		}
	}
	return false
}

// announcement says what a scan has told of a name: that it is there, and that it has content.
type announcement struct{ arrival, content bool }

// alreadyTold reports whether a scan has told what a change says. done is how far the changes have been read.
func (d *directory) alreadyTold(c change, done int64) bool {
	if done >= d.horizon {
		d.announced = nil
	}
	known := d.announced[c.name]
	switch {
	case known == nil:
	case c.mask&arriving != 0 && known.arrival:
		known.arrival = false
		return true
	case c.mask&syscall.IN_MODIFY != 0:
		return known.content
	case c.mask&syscall.IN_ATTRIB == 0:
		// What has this name from here on is something else.
		delete(d.announced, c.name)
	}
	return false
}
