package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// lifetime is how long, in seconds, an answer may be kept. It only says which address stands for a name: whether the
// name may be reached is decided again at each connection.
const lifetime = 60

// nameOfQuestion is a pointer to the name in the question.
const nameOfQuestion = 0xc000 | headerSize

// Failed answers with a code and nothing else. No answer is longer than 512 bytes, so that none is ever truncated.
func (q *Query) Failed(code Code) []byte {
	return q.finish(q.begin(code, 0), code)
}

// Empty answers that the name exists and has nothing of the type that was asked for.
func (q *Query) Empty() []byte { return q.Failed(OK) }

// WithAddress answers a question of type A.
func (q *Query) WithAddress(address netip.Addr) []byte {
	bytes := address.As4()
	return q.finish(q.record(q.begin(OK, 1), bytes[:]), OK)
}

// WithName answers a question of type PTR with a usual name.
func (q *Query) WithName(name string) []byte {
	var data []byte
	for label := range strings.SplitSeq(name, ".") {
		data = append(append(data, byte(len(label))), label...)
	}
	return q.finish(q.record(q.begin(OK, 1), append(data, 0)), OK)
}

// begin writes the header and the question, if that could be read.
func (q *Query) begin(code Code, answers uint16) []byte {
	flags := flagResponse | flagAvailable | uint16(code)&15
	if q.recursion {
		flags |= flagRecursion
	}
	var questions, others uint16
	if q.question != nil {
		questions = 1
	}
	if q.extended {
		others = 1
	}
	message := make([]byte, 0, 512)
	for _, field := range []uint16{q.id, flags, questions, answers, 0, others} {
		message = binary.BigEndian.AppendUint16(message, field)
	}
	return append(message, q.question...)
}

func (q *Query) record(message, data []byte) []byte {
	message = binary.BigEndian.AppendUint16(message, nameOfQuestion)
	message = binary.BigEndian.AppendUint16(message, q.Type)
	message = binary.BigEndian.AppendUint16(message, q.Class)
	message = binary.BigEndian.AppendUint32(message, lifetime)
	message = binary.BigEndian.AppendUint16(message, uint16(len(data)))
	return append(message, data...)
}

// finish adds the record of EDNS when the question had one; it holds the upper part of the code.
func (q *Query) finish(message []byte, code Code) []byte {
	if !q.extended {
		return message
	}
	message = binary.BigEndian.AppendUint16(append(message, 0), typeOPT)
	message = binary.BigEndian.AppendUint16(message, MaxMessage)
	return append(message, byte(code>>4), 0, 0, 0, 0, 0)
}
