package tests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const (
	typeA, typeNS, typeSOA, typePTR, typeTXT, typeAAAA = 1, 2, 6, 12, 16, 28
	typeSVCB, typeHTTPS, typeAXFR, typeANY             = 64, 65, 252, 255
)

// question writes a question for a name, as a stub resolver does.
func question(name string, kind uint16) []byte {
	message := []byte{0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(name, ".") {
		message = append(append(message, byte(len(label))), label...)
	}
	return append(binary.BigEndian.AppendUint16(append(message, 0), kind), 0, 1)
}

// reply is what matters of an answer.
type reply struct {
	code, answers int
	data, whole   []byte
}

func readReply(t *testing.T, asked, answer []byte) reply {
	t.Helper()
	if len(answer) < 12 || !bytes.Equal(answer[:2], asked[:2]) || answer[2]&0x80 == 0 || len(answer) > 512 {
		t.Fatalf("answered %x", answer)
	}
	r := reply{code: int(answer[3] & 15), answers: int(binary.BigEndian.Uint16(answer[6:])), whole: answer}
	if r.answers > 0 {
		equal(t, "question", string(answer[12:len(asked)]), string(asked[12:]))
		r.data = answer[len(asked)+12:]
	}
	return r
}

// resolve sends a message to a resolver over UDP, anywhere: all are the guest.
func (g *guest) resolve(message []byte) reply {
	g.t.Helper()
	return readReply(g.t, message, g.exchange("8.8.8.8:53", message))
}

func (g *guest) exchange(address string, message []byte) []byte {
	g.t.Helper()
	conn, err := g.tryDial("udp4", address)
	check(g.t, err)
	defer conn.Close()
	conn.Write(message)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer := make([]byte, 65535)
	n, err := conn.Read(answer)
	check(g.t, err)
	return answer[:n]
}

func TestAnAllowedNameGetsAnAddressOfItsOwn(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test", "files.example.test")
	first := g.resolve(question("api.example.test", typeA))
	equal(t, "code", first.code, 0)
	equal(t, "answers", first.answers, 1)
	equal(t, "address", fmt.Sprint(first.data), "[198 18 1 0]")
	ttl := binary.BigEndian.Uint32(first.whole[len(first.whole)-10:])
	equal(t, "lifetime", ttl, uint32(60))
	equal(t, "other", fmt.Sprint(g.resolve(question("files.example.test", typeA)).data), "[198 18 1 1]")
	equal(t, "again", fmt.Sprint(g.resolve(question("api.example.test", typeA)).data), "[198 18 1 0]")
	expectAsked(t, way, "GET /v1/names/api.example.test", "GET /v1/names/files.example.test")
}

func TestANameThatIsNotAllowedDoesNotExist(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	for _, kind := range []uint16{typeA, typeTXT, typeANY} {
		denied := g.resolve(question("c2VjcmV0.evil.test", kind))
		equal(t, "code", denied.code, 3)
		equal(t, "answers", denied.answers, 0)
	}
	expectAsked(t, way, "GET /v1/names/c2vjcmv0.evil.test")
}

func TestAllResolversAreTheGuest(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	for _, server := range []string{"198.18.0.1:53", "8.8.8.8:53", "127.0.0.1:53", "10.1.2.3:53", "127.0.0.1:15053"} {
		asked := question("api.example.test", typeA)
		equal(t, server, readReply(t, asked, g.exchange(server, asked)).answers, 1)
	}
}

func TestOtherTypesOfAnAllowedNameAreEmpty(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	for _, kind := range []uint16{typeAAAA, typeHTTPS, typeSVCB, typeTXT, typeNS, typeSOA, typePTR, typeAXFR, typeANY, 10, 0, 65535} {
		empty := g.resolve(question("api.example.test", kind))
		equal(t, "code", empty.code, 0)
		equal(t, "answers", empty.answers, 0)
	}
	expectAsked(t, way, "GET /v1/names/api.example.test")
}

func TestTheCaseOfAQuestionIsKept(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	mixed := g.resolve(question("aPi.ExAmPlE.TeSt", typeA))
	equal(t, "address", fmt.Sprint(mixed.data), "[198 18 1 0]")
	equal(t, "case", bytes.Contains(mixed.whole, []byte("\x03aPi\x07ExAmPlE\x04TeSt")), true)
	expectAsked(t, way, "GET /v1/names/api.example.test")
}

func TestTheNameOfAnAddressIsTold(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	g.resolve(question("api.example.test", typeA))
	way.requests()
	named := g.resolve(question("0.1.18.198.in-addr.arpa", typePTR))
	equal(t, "name", string(named.data), "\x03api\x07example\x04test\x00")
	equal(t, "proxy", string(g.resolve(question("1.0.18.198.in-addr.arpa", typePTR)).data), "\x05proxy\x08internal\x00")
	equal(t, "other type", g.resolve(question("0.1.18.198.in-addr.arpa", typeA)).code, 0)
	for _, unknown := range []string{"9.9.18.198.in-addr.arpa", "8.8.8.8.in-addr.arpa", "in-addr.arpa", "1.18.198.in-addr.arpa",
		"::1.in-addr.arpa", "::ffff:1.2.3.4.in-addr.arpa", "256.0.18.198.in-addr.arpa", "x.in-addr.arpa"} {
		equal(t, unknown, g.resolve(question(unknown, typePTR)).code, 3)
	}
	expectAsked(t, way)
}

func TestThePlatformsNamesHaveFixedAddresses(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	equal(t, "proxy", fmt.Sprint(g.resolve(question("proxy.internal", typeA)).data), "[198 18 0 1]")
	equal(t, "no broker", g.resolve(question("broker.gatehouse.internal", typeA)).code, 3)
	time.Sleep(600 * time.Millisecond)
	way.allow("broker.gatehouse.internal")
	equal(t, "broker", fmt.Sprint(g.resolve(question("broker.gatehouse.internal", typeA)).data), "[198 18 0 2]")
}

func TestNamesThatNoHostHasDoNotExistAndAreAskedForExactly(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	asked := append([]byte{0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x03a.b\x04test\x00\x00\x01\x00\x01"...)
	equal(t, "dot in a label", g.resolve(asked).code, 3)
	equal(t, "NUL", g.resolve(question("api.example.test\x00.evil.test", typeA)).code, 3)
	equal(t, "percent", g.resolve(question("api%2eexample.test", typeA)).code, 3)
	equal(t, "newline", g.resolve(question("a\r\nb.test", typeA)).code, 3)
	// Even if the way out would allow them.
	way.allow("é.test")
	equal(t, "not ASCII", g.resolve(question("é.test", typeA)).code, 3)
	expectAsked(t, way, `GET /v1/names/a%5C.b.test`, "GET /v1/names/api.example.test%00.evil.test",
		"GET /v1/names/api%252eexample.test", "GET /v1/names/a%0D%0Ab.test", "GET /v1/names/%C3%A9.test")
}

func TestTheRootAndOtherClassesAreRefused(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	equal(t, "root", g.resolve(append([]byte{0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0, 0, 2, 0, 1)).code, 5)
	chaos := question("version.bind", typeTXT)
	chaos[len(chaos)-1] = 3
	equal(t, "chaos", g.resolve(chaos).code, 5)
	expectAsked(t, way)
}

func TestJunkIsAnsweredAsJunkAndAsksNobody(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	for name, junk := range junkMessages() {
		if code := g.resolve(junk).code; code != 1 {
			t.Fatalf("%s: answered with %d", name, code)
		}
	}
	expectAsked(t, way)
	// And it goes on.
	equal(t, "proxy", g.resolve(question("proxy.internal", typeA)).answers, 1)
}

func junkMessages() map[string][]byte {
	header := func(questions, answers, authorities, others byte) []byte {
		return []byte{0xab, 0xcd, 1, 0, 0, questions, 0, answers, 0, authorities, 0, others}
	}
	good := question("api.example.test", typeA)[12:]
	long := strings.Repeat("a", 63)
	return map[string][]byte{
		"no question":          header(0, 0, 0, 0),
		"missing question":     header(1, 0, 0, 0),
		"two questions":        append(append(header(2, 0, 0, 0), good...), good...),
		"an answer":            append(header(1, 1, 0, 0), good...),
		"an authority":         append(header(1, 0, 1, 0), good...),
		"two others":           append(header(1, 0, 0, 2), good...),
		"missing other":        append(header(1, 0, 0, 1), good...),
		"not EDNS":             append(append(header(1, 0, 0, 1), good...), "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"...),
		"EDNS with a name":     append(append(header(1, 0, 0, 1), good...), "\x01a\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"...),
		"EDNS too short":       append(append(header(1, 0, 0, 1), good...), "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x01"...),
		"broken option":        append(append(header(1, 0, 0, 1), good...), "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x09"...),
		"trailing bytes":       append(append(header(1, 0, 0, 0), good...), 0),
		"pointer to itself":    append(header(1, 0, 0, 0), 0xc0, 12, 0, 1, 0, 1),
		"pointers in a loop":   append(header(1, 0, 0, 0), 1, 'a', 0xc0, 16, 0xc0, 14, 0, 1, 0, 1),
		"pointer to header":    append(header(1, 0, 0, 0), 1, 'a', 0xc0, 0, 0, 1, 0, 1),
		"reserved label":       append(header(1, 0, 0, 0), 0x41, 'a', 0, 0, 1, 0, 1),
		"label over the end":   append(header(1, 0, 0, 0), 9, 'a', 0, 0, 1, 0, 1),
		"no end of the name":   append(header(1, 0, 0, 0), 1, 'a'),
		"no type":              append(header(1, 0, 0, 0), 1, 'a', 0, 0, 1),
		"name of 256 bytes":    question(strings.Join([]string{long, long, long, long[:62]}, "."), typeA),
		"truncated question":   append([]byte{0xab, 0xcd, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0}, good...),
		"a message of 2 KiB":   append(append(header(1, 0, 0, 0), good...), make([]byte, 2000)...),
		"a message of 60 KiB":  append(append(header(1, 0, 0, 0), good...), make([]byte, 60_000)...),
		"questions everywhere": append(header(255, 255, 255, 255), good...),
	}
}

func TestTheLongestNameIsAnsweredWhole(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	long := strings.Repeat("a", 63)
	name := strings.Join([]string{long, long, long, long[:61]}, ".")
	way.allow(name)
	equal(t, "answers", g.resolve(question(name, typeA)).answers, 1)
	named := g.resolve(question("0.1.18.198.in-addr.arpa", typePTR))
	equal(t, "length of the name", len(named.data), 255)
}

func TestWhatIsNoQuestionIsNotAnswered(t *testing.T) {
	g, _ := startNetworked(t, "transparent")
	conn, err := g.tryDial("udp4", "8.8.8.8:53")
	check(t, err)
	conn.Write(nil)
	conn.Write([]byte("short"))
	answer := question("proxy.internal", typeA)
	answer[2] |= 0x80
	conn.Write(answer)
	// Only this is answered.
	asked := question("proxy.internal", typeA)
	asked[0] = 0x77
	conn.Write(asked)
	buffer := make([]byte, 512)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := conn.Read(buffer)
	check(t, err)
	equal(t, "answers", readReply(t, asked, buffer[:n]).answers, 1)
}

func TestOtherOperationsAreNotImplemented(t *testing.T) {
	g, _ := startNetworked(t, "transparent")
	update := question("proxy.internal", typeA)
	update[2] = 5 << 3
	equal(t, "code", g.resolve(update).code, 4)
}

func TestExtendedQuestionsGetExtendedAnswers(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	asked := question("api.example.test", typeA)
	asked[11] = 1
	extended := append(asked, "\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x0c\x00\x0a\x00\x0812345678"[:]...)
	answer := g.exchange("8.8.8.8:53", extended)
	equal(t, "code", answer[3]&15, byte(0))
	equal(t, "EDNS", string(answer[len(answer)-11:]), "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00")
	newer := append(asked[:len(asked):len(asked)], "\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00"...)
	answer = g.exchange("8.8.8.8:53", newer)
	equal(t, "lower code", answer[3]&15, byte(0))
	equal(t, "bad version", string(answer[len(answer)-11:]), "\x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00")
}

// onStream frames messages for TCP.
func onStream(messages ...[]byte) []byte {
	var all []byte
	for _, message := range messages {
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(message))), message...)
	}
	return all
}

func readFrame(t *testing.T, from io.Reader) []byte {
	t.Helper()
	var length [2]byte
	_, err := io.ReadFull(from, length[:])
	check(t, err)
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err = io.ReadFull(from, message)
	check(t, err)
	return message
}

func TestQuestionsOnAConnectionAreAnsweredOneByOne(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	asked, other := question("api.example.test", typeA), question("evil.test", typeA)
	conn := g.dial("8.8.8.8:53")
	frames := onStream(asked, other)
	// The length may come apart from the message, and a message in pieces.
	for _, piece := range [][]byte{frames[:1], frames[1:7], frames[7:]} {
		conn.Write(piece)
	}
	equal(t, "first", readReply(t, asked, readFrame(t, conn)).answers, 1)
	equal(t, "second", readReply(t, other, readFrame(t, conn)).code, 3)
}

func TestTricksWithTheLengthEndAConnection(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	for _, trick := range [][]byte{{0, 0}, {0, 5, 'h', 'e', 'l', 'l', 'o'}, {255, 255}, {5, 0}} {
		conn := g.dial("8.8.8.8:53")
		conn.Write(trick)
		expectReset(t, conn)
	}
	conn := g.dial("8.8.8.8:53")
	conn.Write(onStream(question("api.example.test", typeA))[:20])
	conn.CloseWrite()
	rest, _ := io.ReadAll(conn)
	equal(t, "answer to half a question", len(rest), 0)
	expectAsked(t, way)
}

func TestManySilentConnectionsLeaveTheResolverAnswering(t *testing.T) {
	g, _ := startNetworked(t, "transparent")
	g.inside(func() {
		for range 16 {
			conn, err := net.Dial("tcp4", "127.0.0.1:15053")
			check(t, err)
			t.Cleanup(func() { conn.Close() })
		}
	})
	eventually(t, "one more is reset", func() bool {
		conn, err := g.tryDial("tcp4", "127.0.0.1:15053")
		if err != nil {
			return true
		}
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
		return err != nil && strings.Contains(err.Error(), "reset")
	})
	equal(t, "by UDP", g.resolve(question("proxy.internal", typeA)).answers, 1)
}

func TestWithoutAWayOutNamesFailForAMoment(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	way.stop()
	equal(t, "code", g.resolve(question("api.example.test", typeA)).code, 2)
	equal(t, "proxy", g.resolve(question("proxy.internal", typeA)).answers, 1)
	way.listen()
	equal(t, "answers", g.resolve(question("api.example.test", typeA)).answers, 1)
}

func TestAChangedPolicyIsSeenWithinASecond(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	equal(t, "before", g.resolve(question("api.example.test", typeA)).code, 0)
	way.deny("api.example.test")
	time.Sleep(time.Second)
	equal(t, "denied", g.resolve(question("api.example.test", typeA)).code, 3)
	way.allow("api.example.test")
	time.Sleep(time.Second)
	equal(t, "allowed", g.resolve(question("api.example.test", typeA)).code, 0)
}

func TestAFloodOfQuestionsIsSlowedDownAndKeptSmall(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	before := g.anonymous()
	conn, err := g.tryDial("udp4", "8.8.8.8:53")
	check(t, err)
	begun := time.Now()
	for i := range 20_000 {
		conn.Write(question(fmt.Sprintf("host%d.evil.test", i), typeA))
	}
	if kb := g.anonymous() - before; kb > 8000 {
		t.Fatalf("the questions hold %d kB", kb)
	}
	asked, took := len(way.requests()), time.Since(begun)
	if most := 200 + int(took.Seconds()*100) + 1; asked > most {
		t.Fatalf("%d questions were passed on in %s", asked, took)
	}
	status, _, _ := g.request("GET", "/health", nil)
	equal(t, "health", status, 204)
}

func TestProgramsSeeNamesTheUsualWay(t *testing.T) {
	g, way := startNetworked(t, "transparent", asAlice)
	way.allow("api.example.test")
	done := g.start(shell("getent ahostsv4 api.example.test | head -1; getent hosts 198.18.1.0; " +
		"getent ahostsv4 evil.test || echo none")).finish()
	equal(t, "output", strings.Join(strings.Fields(done.stdout), " "), "198.18.1.0 STREAM api.example.test 198.18.1.0 api.example.test none")
}
