package server

import (
	"net/http"

	"gatehouse/guest/idle"
)

// quiet counts requests, so that memory goes back once they are over.
type quiet struct{ next http.Handler }

// ServeHTTP passes a request on and counts it, unless it only asks whether the guest is there.
func (q *quiet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != healthPath {
		idle.Begin()
		defer idle.End()
	}
	q.next.ServeHTTP(w, r)
}
