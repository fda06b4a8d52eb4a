package process

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	ioctlUnlock = 0x40045431 // TIOCSPTLCK
	ioctlPeer   = 0x5441     // TIOCGPTPEER
	ioctlNumber = 0x80045430 // TIOCGPTN
	ttyGroup    = 5
)

// size is the screen size of a terminal in characters.
type size struct{ rows, cols uint16 }

// openTerminal makes a terminal of the given size that belongs to uid. The slave is opened through the master where that
// can be done, so that nothing in the sandbox's /dev/pts can stand in for it.
func openTerminal(screen size, uid int) (master, slave *os.File, err error) {
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	unlocked := int32(0)
	if err = ioctl(fd, ioctlUnlock, unsafe.Pointer(&unlocked)); err != nil {
		err = fmt.Errorf("unlock the terminal: %w", err)
		return nil, nil, err
	}
	peer, err := openPeer(fd)
	if err != nil {
		err = fmt.Errorf("open the terminal's other end: %w", err)
		return nil, nil, err
	}
	slave = os.NewFile(uintptr(peer), "terminal")
	if slave.Chown(uid, ttyGroup) == nil {
		slave.Chmod(0o620)
	}
	if err = setSize(fd, screen); err != nil {
		slave.Close()
		return nil, nil, fmt.Errorf("set the terminal's size: %w", err)
	}
	return master, slave, nil
}

// openPeer opens the other end through the terminal, or by its name where the kernel knows no other way: gVisor's.
func openPeer(fd int) (int, error) {
	const mode = syscall.O_RDWR | syscall.O_NOCTTY | syscall.O_CLOEXEC
	peer, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), ioctlPeer, mode)
	if errno == 0 {
		return int(peer), nil
	}
	number := uint32(0)
	if errno != syscall.ENOTTY || ioctl(fd, ioctlNumber, unsafe.Pointer(&number)) != nil {
		return 0, errno
	}
	return syscall.Open(fmt.Sprintf("/dev/pts/%d", number), mode|syscall.O_NOFOLLOW, 0)
}

func setSize(fd int, screen size) error {
	window := [4]uint16{screen.rows, screen.cols}
	return ioctl(fd, syscall.TIOCSWINSZ, unsafe.Pointer(&window))
}

// unread returns how many bytes wait in a pipe or terminal.
func unread(fd int) int {
	waiting := int32(0)
	if err := ioctl(fd, syscall.TIOCINQ, unsafe.Pointer(&waiting)); err != nil {
		return 0
	}
	return int(waiting)
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}
