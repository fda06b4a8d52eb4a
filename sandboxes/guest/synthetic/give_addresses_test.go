package synthetic

import (
	"fmt"
	"net/netip"
	"testing"
)

var proxy = netip.MustParseAddr("198.18.0.1")

func table() *Table { return New(map[string]netip.Addr{"proxy.internal": proxy}) }

func TestANameKeepsItsAddress(t *testing.T) {
	names := table()
	address := names.Address("api.test")
	if other := names.Address("files.test"); other == address || names.Address("api.test") != address {
		t.Fatalf("api.test is %v, files.test %v", address, other)
	}
	if name, known := names.Name(address); !known || name != "api.test" {
		t.Fatalf("%v is %q", address, name)
	}
}

func TestFixedNamesAreAlwaysKnown(t *testing.T) {
	names := table()
	if name, known := names.Name(proxy); names.Address("proxy.internal") != proxy || !known || name != "proxy.internal" {
		t.Fatalf("the proxy is %v, %q", names.Address("proxy.internal"), name)
	}
	if name, known := names.Name(netip.MustParseAddr("198.18.0.9")); known {
		t.Fatalf("198.18.0.9 is %q", name)
	}
}

func TestAHundredThousandNamesLeaveThoseInUse(t *testing.T) {
	names := table()
	used := names.Address("used.test")
	idle := names.Address("idle.test")
	seen := map[netip.Addr]string{used: "used.test", idle: "idle.test"}
	for i := range 100_000 {
		name := fmt.Sprintf("host%d.wild.test", i)
		address := names.Address(name)
		if other, taken := seen[address]; taken || !Range.Contains(address) {
			t.Fatalf("%s is %v, which was %s", name, address, other)
		}
		seen[address] = name
		names.Name(used)
	}
	if len(names.byName) != maxNames || len(names.byAddress) != maxNames || names.recent.Len() != maxNames {
		t.Fatalf("there are %d names, %d addresses, %d entries", len(names.byName), len(names.byAddress), names.recent.Len())
	}
	if name, _ := names.Name(used); name != "used.test" {
		t.Fatalf("the used address is %q", name)
	}
	if name, known := names.Name(idle); known {
		t.Fatalf("the idle address is still %q", name)
	}
}

func TestAddressesAreGivenAgainAfterAllOthers(t *testing.T) {
	names := table()
	used := names.Address("used.test")
	for i := range 131_000 {
		address := names.Address(fmt.Sprintf("host%d.wild.test", i))
		if name, _ := names.Name(used); name != "used.test" || address == used || !Range.Contains(address) || address == proxy {
			t.Fatalf("name %d is %v, and the used address %q", i, address, name)
		}
	}
}
