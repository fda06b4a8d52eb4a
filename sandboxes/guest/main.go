// Gatehouse-guest is the first process of a sandbox: it starts programs, carries their input and output, reads and
// writes files and collects orphans, for a gateway that reaches it over an inherited socket.
package main

import (
	"fmt"
	"os"

	"gatehouse/guest/boot"
	"gatehouse/guest/landlock"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == landlock.Verb {
		fmt.Fprintln(os.Stderr, "gatehouse-guest:", landlock.Enclose(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(boot.Run())
}
