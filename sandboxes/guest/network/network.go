// Package network is what programs in the sandbox find where the network would be: a proxy, a listener that connections
// to anywhere are led to, and a resolver. All three pass on to the one way out and decide nothing.
package network

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"

	"gatehouse/guest/config"
	"gatehouse/guest/egress"
	"gatehouse/guest/synthetic"
)

// Connections that each port serves at once.
const (
	maxProxied     = 512
	maxTransparent = 512
	maxResolving   = 16
)

const loopback = "127.0.0.1"

// proxyAlias leads to the proxy, for programs that are told a proxy's name.
var proxyAlias = netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), 8080)

const proxyName = "proxy.internal"

// platform are the names that always have the same addresses.
var platform = map[string]netip.Addr{
	proxyName:                   proxyAlias.Addr(),
	"broker.gatehouse.internal": netip.MustParseAddr("198.18.0.2"),
}

// Start opens the ports of the sandbox's mode and closes the channel that it returns when they are open; the guest
// answers meanwhile. What cannot be opened is told to problems. The ports serve whether or not the way out is there:
// that is found out anew for each connection.
func Start(settings config.Network, problems io.Writer) <-chan struct{} {
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		for _, err := range openAll(settings) {
			if err != nil {
				fmt.Fprintln(problems, "network:", err)
			}
		}
	}()
	return opened
}

func openAll(settings config.Network) []error {
	if settings.Mode != config.NetworkProxy && settings.Mode != config.NetworkTransparent {
		return nil
	}
	way := egress.Way(settings.Socket)
	proxy := &proxy{way: way}
	failures := []error{open(settings.ProxyPort, maxProxied, proxy.serve, proxy.refuse)}
	if settings.Mode == config.NetworkProxy {
		return failures
	}
	names := synthetic.New(platform)
	transparent := &transparent{way: way, names: names, proxy: proxy}
	resolver := &resolver{names: names, verdicts: newVerdicts(way.MayResolve)}
	return append(failures,
		open(settings.TransparentPort, maxTransparent, transparent.serve, reset),
		resolver.listen(settings.DNSPort),
		open(settings.DNSPort, maxResolving, resolver.serve, reset))
}

func listenTCP(port int) (*net.TCPListener, error) {
	// Keepalive would cost a timer for each connection, and both ends are on this machine.
	configuration := net.ListenConfig{KeepAlive: -1}
	listener, err := configuration.Listen(context.Background(), "tcp4", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}
