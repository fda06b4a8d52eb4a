package config

import (
	"fmt"
	"path"
)

// The modes of a sandbox's network. Without a mode there is none.
const (
	NetworkNone        = "none"
	NetworkProxy       = "proxy"
	NetworkTransparent = "transparent"
)

const maxPort = 65535

// Network is the way out of the sandbox and the ports inside that lead to it. The last two ports are for the transparent
// mode alone.
type Network struct {
	Mode            string `json:"mode"`
	Socket          string `json:"socket"`
	ProxyPort       int    `json:"proxy_port"`
	TransparentPort int    `json:"transparent_port"`
	DNSPort         int    `json:"dns_port"`
}

// Ports returns the ports that the guest itself listens on.
func (n *Network) Ports() []int {
	switch n.Mode {
	case NetworkProxy:
		return []int{n.ProxyPort}
	case NetworkTransparent:
		return []int{n.ProxyPort, n.TransparentPort, n.DNSPort}
	}
	return nil
}

func (n *Network) check() error {
	switch n.Mode {
	case "", NetworkNone:
		return nil
	case NetworkProxy, NetworkTransparent:
	default:
		return fmt.Errorf("network.mode: %q is no mode", n.Mode)
	}
	if !path.IsAbs(n.Socket) {
		return fmt.Errorf("network.socket: %q is not an absolute path", n.Socket)
	}
	for _, port := range n.Ports() {
		if port < 1 || port > maxPort {
			return fmt.Errorf("network: %d is not a port", port)
		}
	}
	return nil
}
