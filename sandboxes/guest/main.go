// Gatehouse-guest is the first process of a sandbox: it starts programs, carries their input and output, reads and
// writes files and collects orphans, for a gateway that reaches it over an inherited socket.
package main

import (
	"os"

	"gatehouse/guest/boot"
)

func main() { os.Exit(boot.Run()) }
