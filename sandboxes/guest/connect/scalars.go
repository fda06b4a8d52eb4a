package connect

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// Number is an unsigned 32-bit integer that may also be written as a string.
type Number uint32

// UnmarshalJSON accepts 12, "12" and 1.2e1.
func (n *Number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	value, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	if err != nil || value < 0 || value > math.MaxUint32 || value != math.Trunc(value) {
		return Errorf(InvalidArgument, "%.40s is not a whole number from 0 to %d", text, uint32(math.MaxUint32))
	}
	*n = Number(value)
	return nil
}

// Bytes is a byte string: base64, standard or URL alphabet, with or without padding.
type Bytes []byte

// UnmarshalJSON decodes the base64 text.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	var encoded string
	if err := json.Unmarshal(text, &encoded); err != nil {
		return err
	}
	encoded = strings.TrimRight(encoded, "=")
	alphabet := base64.RawStdEncoding
	if strings.ContainsAny(encoded, "-_") {
		alphabet = base64.RawURLEncoding
	}
	data, err := alphabet.DecodeString(encoded)
	if err != nil {
		return Errorf(InvalidArgument, "the input is not base64")
	}
	*b = data
	return nil
}
