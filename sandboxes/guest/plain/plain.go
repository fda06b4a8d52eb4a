// Package plain answers the calls that are plain HTTP, not Connect, with JSON.
package plain

import (
	"encoding/json"
	"net/http"
	"strconv"
)

const contentType = "application/json; charset=utf-8"

// Error answers with an error body: the status as code, and a message for people.
func Error(w http.ResponseWriter, status int, message string) {
	JSON(w, status, map[string]any{"code": status, "message": message})
}

// JSON answers with any value.
func JSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"code":500,"message":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
