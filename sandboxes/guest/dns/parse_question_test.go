package dns

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

// asked is a question for a name in the wire's form, with the number of other records given.
func asked(name string, others byte, rest string) []byte {
	return append([]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, others}, name+"\x00\x01\x00\x01"+rest...)
}

const (
	apiName = "\x03aPi\x04test\x00"
	edns    = "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
)

func TestAQuestionIsRead(t *testing.T) {
	query, code := Parse(asked(apiName, 1, edns))
	name, usual := query.Name()
	if code != OK || name != "api.test" || !usual || query.Type != TypeA || query.Class != ClassIN {
		t.Fatalf("read as %v %q %v %v", code, name, usual, query)
	}
}

func TestAnAnswerRepeatsTheQuestion(t *testing.T) {
	query, _ := Parse(asked(apiName, 1, edns))
	want := "\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x01" + apiName + "\x00\x01\x00\x01" +
		"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x12\x01\x00" + edns
	if got := query.WithAddress(netip.MustParseAddr("198.18.1.0")); string(got) != want {
		t.Fatalf("answered %q", got)
	}
}

func TestDifferentNamesNeverLookTheSame(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"\x01a\x01b\x00", "\x03a.b\x00", "\x04a\\.b\x00", "\x02a\\\x01b\x00", "\x03a\x00b\x00", "\x00"} {
		query, code := Parse(asked(name, 0, ""))
		if code != OK {
			t.Fatalf("%q: %d", name, code)
		}
		text, _ := query.Name()
		if other, is := seen[text]; is {
			t.Fatalf("%q and %q are both %q", name, other, text)
		}
		seen[text] = name
	}
}

func FuzzParse(f *testing.F) {
	long := "\x3f" + strings.Repeat("a", 63)
	for _, seed := range [][]byte{
		nil, []byte("short"), asked(apiName, 0, ""), asked(apiName, 1, edns), asked("\x00", 0, ""), asked(long+long+long+"\x3d"+long[3:]+"\x00", 0, ""),
		asked("\xc0\x0c", 0, ""), asked("\x01a\xc0\x0c", 0, ""), asked("\x41a\x00", 0, ""), asked(apiName, 1, edns[:9]+"\xff\xff"),
		asked(apiName, 1, "\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00"), asked("\x03a.b\x00", 0, "trailing"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		query, code := Parse(message)
		if query == nil {
			return
		}
		for _, answer := range [][]byte{query.Failed(code), query.WithAddress(netip.MustParseAddr("198.18.1.0"))} {
			if len(answer) < 12 || len(answer) > 512 || !bytes.Equal(answer[:2], message[:2]) || answer[2]&0x80 == 0 {
				t.Fatalf("%x is answered with %x", message, answer)
			}
		}
		if code != OK {
			return
		}
		if query.question == nil || !bytes.HasPrefix(message[headerSize:], query.question) {
			t.Fatalf("%x: the question is %x", message, query.question)
		}
		encoded := 1
		for _, label := range query.Labels {
			if len(label) == 0 || len(label) > maxLabel {
				t.Fatalf("%x has the label %x", message, label)
			}
			encoded += len(label) + 1
		}
		if encoded > maxName || encoded != len(query.question)-4 {
			t.Fatalf("%x: a name of %d bytes", message, encoded)
		}
	})
}
