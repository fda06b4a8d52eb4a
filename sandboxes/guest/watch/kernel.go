package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	// wanted is what the kernel reports about a directory.
	wanted = syscall.IN_CREATE | syscall.IN_MODIFY | syscall.IN_ATTRIB | syscall.IN_DELETE | syscall.IN_MOVED_FROM |
		syscall.IN_MOVED_TO | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_ONLYDIR
	changeHead = 16
)

// change is one event of the kernel: what happened to a name in the directory of a watch, or to the directory itself.
type change struct {
	watch int
	mask  uint32
	name  string
}

// queue is the kernel's queue of changes. Reading waits in the poller and blocks no thread.
type queue struct{ file *os.File }

func openQueue() (*queue, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open a queue of changes: %w", err)
	}
	return &queue{os.NewFile(uintptr(fd), "changes")}, nil
}

// add watches a directory; of a directory that is watched already it returns the same number.
func (q *queue) add(path string, flags uint32) (number int, err error) {
	controlErr := q.control(func(fd int) { number, err = syscall.InotifyAddWatch(fd, path, wanted|flags) })
	if controlErr != nil {
		return 0, controlErr
	}
	if err != nil {
		return 0, &os.PathError{Op: "watch", Path: path, Err: err}
	}
	return number, nil
}

func (q *queue) remove(number int) {
	q.control(func(fd int) { syscall.InotifyRmWatch(fd, uint32(number)) })
}

// wait returns when there are changes, or an error when the queue is closed or the time of its deadline has come.
func (q *queue) wait() error {
	raw, err := q.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return unread(int(fd)) > 0 })
}

// read takes whole changes off the queue, as many as fit, and returns their size; 0 when there are none.
func (q *queue) read(buffer []byte) (n int) {
	q.control(func(fd int) { n, _ = syscall.Read(fd, buffer) })
	return max(n, 0)
}

// waiting returns how many bytes of changes are queued.
func (q *queue) waiting() (size int64) {
	q.control(func(fd int) { size = int64(unread(fd)) })
	return size
}

func unread(fd int) int32 {
	size := int32(0)
	syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&size)))
	return size
}

// control is not Fd: that would make the descriptor block.
func (q *queue) control(act func(fd int)) error {
	raw, err := q.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { act(int(fd)) })
}

// cutChange takes the first change off what was read, and returns its length in bytes.
func cutChange(text []byte) (change, int) {
	end := changeHead + int(binary.NativeEndian.Uint32(text[12:]))
	name, _, _ := bytes.Cut(text[changeHead:end], []byte{0})
	return change{
		watch: int(int32(binary.NativeEndian.Uint32(text))),
		mask:  binary.NativeEndian.Uint32(text[4:]),
		name:  string(name),
	}, end
}
