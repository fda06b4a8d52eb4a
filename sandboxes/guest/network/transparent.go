package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"gatehouse/guest/egress"
	"gatehouse/guest/relay"
	"gatehouse/guest/synthetic"
)

const originalDestination = 80 // SO_ORIGINAL_DST

// transparent takes connections that programs open to anywhere, and that the kernel leads here. They are asked for by
// the name that the address was given to, else by the address.
type transparent struct {
	way   egress.Way
	names *synthetic.Table
	proxy *proxy
}

func (t *transparent) serve(client *net.TCPConn) {
	meant, err := destination(client)
	switch {
	case err != nil, meant.Addr().IsLoopback():
		// Nobody was led here: the program connected to this very port.
		relay.Reset(client)
	case meant == proxyAlias:
		t.proxy.serve(client)
	default:
		t.lead(client, meant)
	}
}

func (t *transparent) lead(client *net.TCPConn, meant netip.AddrPort) {
	host, known := t.names.Name(meant.Addr())
	if !known {
		host = meant.Addr().String()
	}
	out, ahead, err := t.way.Connect(net.JoinHostPort(host, strconv.Itoa(int(meant.Port()))))
	if err != nil {
		relay.Reset(client)
		return
	}
	defer client.Close()
	defer out.Close()
	relay.Both(out, ahead, client)
}

// destination returns where a connection was meant to go before the kernel led it here.
func destination(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	// The answer is a sockaddr_in; this structure is long enough for it and can be asked for without unsafe memory.
	var answer *syscall.IPv6Mreq
	controlErr := raw.Control(func(fd uintptr) {
		answer, err = syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, originalDestination)
	})
	if controlErr != nil {
		return netip.AddrPort{}, controlErr
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	address := answer.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(address[4:8])), binary.BigEndian.Uint16(address[2:4])), nil
}
