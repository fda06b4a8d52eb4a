package boot

import (
	"fmt"
	"net"
	"os"
)

// listenVerb, followed by a path, is for runtimes that pass no descriptors on: the guest makes its listener itself.
const listenVerb = "listen"

func openListener(arguments []string) (net.Listener, error) {
	if len(arguments) == 2 && arguments[0] == listenVerb {
		return net.Listen("unix", arguments[1])
	}
	file := os.NewFile(listenerFD, "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("use descriptor %d as the listener: %w", listenerFD, err)
	}
	return listener, nil
}
