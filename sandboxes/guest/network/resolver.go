package network

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"gatehouse/guest/dns"
	"gatehouse/guest/relay"
	"gatehouse/guest/synthetic"
)

const (
	// maxAnswering is how many datagrams are answered at once; more wait in the socket, where the kernel bounds them.
	maxAnswering = 64
	// streamIdle is how long a connection of the resolver may say nothing, or take nothing.
	streamIdle  = 10 * time.Second
	reverseZone = "in-addr.arpa"
)

// resolver answers questions for names with synthetic addresses. Nothing that is asked leaves the sandbox but to the
// one who decides whether the name may be reached.
type resolver struct {
	names    *synthetic.Table
	verdicts *verdicts
}

// listen answers datagrams from now on.
func (r *resolver) listen(port int) error {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return err
	}
	go r.answerDatagrams(socket)
	return nil
}

func (r *resolver) answerDatagrams(socket *net.UDPConn) {
	taken := make(chan struct{}, maxAnswering)
	// One byte more than a question may have, to notice those that are too long.
	buffer := make([]byte, dns.MaxMessage+1)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		message := append([]byte(nil), buffer[:n]...)
		taken <- struct{}{}
		go func() {
			defer func() { <-taken }()
			if answer := r.answer(message); answer != nil {
				socket.WriteToUDPAddrPort(answer, from)
			}
		}()
	}
}

// serve answers questions on a connection, one after the other.
func (r *resolver) serve(client *net.TCPConn) {
	defer client.Close()
	var length [2]byte
	for {
		client.SetDeadline(time.Now().Add(streamIdle))
		if _, err := io.ReadFull(client, length[:]); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint16(length[:]))
		if size > dns.MaxMessage {
			relay.Reset(client)
			return
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(client, message); err != nil {
			return
		}
		answer := r.answer(message)
		if answer == nil {
			relay.Reset(client)
			return
		}
		client.SetDeadline(time.Now().Add(streamIdle))
		if _, err := client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer returns nil for what is not a question.
func (r *resolver) answer(message []byte) []byte {
	query, code := dns.Parse(message)
	if query == nil {
		return nil
	}
	if code != dns.OK {
		return query.Failed(code)
	}
	name, usual := query.Name()
	if query.Class != dns.ClassIN || name == "" {
		return query.Failed(dns.Refused)
	}
	if name == reverseZone || strings.HasSuffix(name, "."+reverseZone) {
		return r.answerReverse(query, name)
	}
	return r.answerName(query, name, usual)
}

func (r *resolver) answerName(query *dns.Query, name string, usual bool) []byte {
	// The proxy says itself, and better, when the way out is not available.
	if name != proxyName {
		// What no name of a host looks like is asked for all the same: somebody may want to know who tries it.
		allowed, err := r.verdicts.of(name)
		if err != nil {
			return query.Failed(dns.ServerFailure)
		}
		if !allowed || !usual {
			return query.Failed(dns.NoSuchName)
		}
	}
	if query.Type != dns.TypeA {
		return query.Empty()
	}
	return query.WithAddress(r.names.Address(name))
}

// answerReverse knows the names of synthetic addresses and no others.
func (r *resolver) answerReverse(query *dns.Query, name string) []byte {
	address, err := netip.ParseAddr(strings.TrimSuffix(name, "."+reverseZone))
	if err != nil || !address.Is4() {
		return query.Failed(dns.NoSuchName)
	}
	backwards := address.As4()
	known, is := r.names.Name(netip.AddrFrom4([4]byte{backwards[3], backwards[2], backwards[1], backwards[0]}))
	switch {
	case !is:
		return query.Failed(dns.NoSuchName)
	case query.Type != dns.TypePTR:
		return query.Empty()
	}
	return query.WithName(known)
}
