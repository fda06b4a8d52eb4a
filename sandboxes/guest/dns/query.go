// Package dns reads the questions of stub resolvers and writes answers to them: one question a message, nothing that
// such a resolver does not send, and no guessing about the rest.
package dns

import (
	"encoding/binary"
	"strings"
)

// MaxMessage is the size of the largest question that is read, and what is told to resolvers that ask by EDNS.
const MaxMessage = 1232

// Code is a response code.
type Code uint16

// The codes that are used here; BadVersion needs EDNS.
const (
	OK             Code = 0
	FormatError    Code = 1
	ServerFailure  Code = 2
	NoSuchName     Code = 3
	NotImplemented Code = 4
	Refused        Code = 5
	BadVersion     Code = 16
)

// Types and the class of questions.
const (
	TypeA   = 1
	TypePTR = 12
	ClassIN = 1
)

const (
	headerSize = 12
	maxName    = 255
	maxLabel   = 63
	typeOPT    = 41
	optSize    = 11

	flagResponse  = 1 << 15
	flagTruncated = 1 << 9
	flagRecursion = 1 << 8
	flagAvailable = 1 << 7
	opcodes       = 15 << 11
)

// Query is a question with what its answer has to repeat.
type Query struct {
	// Labels are the parts of the name as they were asked.
	Labels [][]byte
	Type   uint16
	Class  uint16

	id        uint16
	recursion bool
	question  []byte
	extended  bool
}

// Parse reads a message. A nil query must not be answered at all: the message is not a question. With a code other than
// OK, that is the answer.
func Parse(message []byte) (*Query, Code) {
	if len(message) < headerSize {
		return nil, FormatError
	}
	flags := binary.BigEndian.Uint16(message[2:])
	if flags&flagResponse != 0 {
		return nil, FormatError
	}
	query := &Query{id: binary.BigEndian.Uint16(message), recursion: flags&flagRecursion != 0}
	if flags&opcodes != 0 {
		return query, NotImplemented
	}
	questions, answers := binary.BigEndian.Uint16(message[4:]), binary.BigEndian.Uint16(message[6:])
	authorities, others := binary.BigEndian.Uint16(message[8:]), binary.BigEndian.Uint16(message[10:])
	if flags&flagTruncated != 0 || len(message) > MaxMessage || questions != 1 || answers != 0 || authorities != 0 || others > 1 {
		return query, FormatError
	}
	rest, readable := query.takeQuestion(message[headerSize:])
	if !readable {
		return query, FormatError
	}
	code := OK
	if others == 1 {
		rest, code = query.takeOptions(rest)
	}
	if code == OK && len(rest) > 0 {
		return query, FormatError
	}
	return query, code
}

// takeQuestion reads the name, type and class. A pointer has nothing to point to in the first name of a message.
func (q *Query) takeQuestion(from []byte) (rest []byte, readable bool) {
	var labels [][]byte
	at := 0
	for {
		if at >= len(from) || int(from[at]) > maxLabel {
			return nil, false
		}
		size := int(from[at])
		if at++; size == 0 {
			break
		}
		if at+size >= len(from) || at+size+1 > maxName {
			return nil, false
		}
		labels = append(labels, from[at:at+size])
		at += size
	}
	if at+4 > len(from) {
		return nil, false
	}
	q.Labels, q.question = labels, from[:at+4]
	q.Type, q.Class = binary.BigEndian.Uint16(from[at:]), binary.BigEndian.Uint16(from[at+2:])
	return from[at+4:], true
}

// takeOptions reads the one record that may come along: EDNS, whose options mean nothing here.
func (q *Query) takeOptions(from []byte) (rest []byte, code Code) {
	if len(from) < optSize || from[0] != 0 || binary.BigEndian.Uint16(from[1:]) != typeOPT {
		return nil, FormatError
	}
	size := int(binary.BigEndian.Uint16(from[9:]))
	if len(from) != optSize+size {
		return nil, FormatError
	}
	for options := from[optSize:]; len(options) > 0; {
		if len(options) < 4 || len(options) < 4+int(binary.BigEndian.Uint16(options[2:])) {
			return nil, FormatError
		}
		options = options[4+int(binary.BigEndian.Uint16(options[2:])):]
	}
	q.extended = true
	if version := from[6]; version != 0 {
		return nil, BadVersion
	}
	return nil, OK
}

// Name returns the name in lower case without its last dot. A dot or a backslash within a label is written with a
// backslash before it, so that two different names never look the same. Usual says that there are only letters, digits,
// hyphens and underscores in it.
func (q *Query) Name() (name string, usual bool) {
	var text strings.Builder
	usual = len(q.Labels) > 0
	for i, label := range q.Labels {
		if i > 0 {
			text.WriteByte('.')
		}
		for _, b := range label {
			switch {
			case 'A' <= b && b <= 'Z':
				b += 'a' - 'A'
			case b == '.' || b == '\\':
				usual = false
				text.WriteByte('\\')
			case !('a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '-' || b == '_'):
				usual = false
			}
			text.WriteByte(b)
		}
	}
	return text.String(), usual
}
