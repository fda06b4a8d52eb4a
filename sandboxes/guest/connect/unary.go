package connect

import (
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
)

// Raw is a response message that is JSON already.
type Raw []byte

// Empty is the response message without fields.
var Empty = Raw("{}")

// Unary makes a handler of a function that answers one request with one response.
// The response is marshalled as JSON, except Raw, which is sent as it is.
func Unary[Request any](answer func(r *http.Request, request *Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !accepts(w, r, "application/json") {
			return
		}
		response, err := callUnary(r, answer)
		if err != nil {
			WriteError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, response)
	})
}

func callUnary[Request any](r *http.Request, answer func(*http.Request, *Request) (any, error)) (any, error) {
	r, cancel, err := limited(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return nil, Errorf(Unimplemented, "content encoding %q is not supported", coding)
	}
	var request Request
	err = budgeted(r.Body, MaxMessage, func(body []byte) error { return decode(body, &request) })
	if err != nil {
		return nil, err
	}
	return answer(r, &request)
}

// WriteError answers a unary call with an error and the HTTP status of its code.
func WriteError(w http.ResponseWriter, err error) {
	known := AsError(err)
	writeJSON(w, statuses[known.Code], known)
}

func writeJSON(w http.ResponseWriter, status int, message any) {
	body, ready := message.(Raw)
	if !ready {
		var err error
		if body, err = json.Marshal(message); err != nil {
			status, body = http.StatusInternalServerError, Raw(`{"code":"internal","message":"the answer cannot be encoded"}`)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

func accepts(w http.ResponseWriter, r *http.Request, mediaType string) bool {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return false
	}
	given, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || given != mediaType {
		w.Header().Set("Accept-Post", mediaType)
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return false
	}
	return true
}
