// A stand-in for the sidecar in the pods of the tests. On port 9464 it answers as the sidecar does: GET /status and
// /readyz, POST /drain and /resume with a token. POST /set?in_flight=N&connections=N&state=S is how a test says what
// the worker does; with &lingering it takes for ever to drain. `sidecar worker` does nothing until SIGTERM.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type sidecar struct {
	sync.Mutex
	state                 string
	draining, lingering   bool
	inFlight, connections int
	idleSince             time.Time
}

func (s *sidecar) shown() string {
	switch {
	case s.draining && (s.inFlight > 0 || s.lingering):
		return "draining"
	case s.draining:
		return "drained"
	default:
		return s.state
	}
}

func (s *sidecar) status(answer http.ResponseWriter, _ *http.Request) {
	s.Lock()
	defer s.Unlock()
	var idle any
	if s.inFlight == 0 {
		idle = time.Since(s.idleSince).Seconds()
	}
	json.NewEncoder(answer).Encode(map[string]any{
		"queue": "any", "state": s.shown(), "draining": s.draining,
		"in_flight": s.inFlight, "connections": s.connections, "idle_seconds": idle,
	})
}

func (s *sidecar) ready(answer http.ResponseWriter, _ *http.Request) {
	s.Lock()
	defer s.Unlock()
	if s.shown() != "consuming" {
		answer.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(answer, s.shown())
}

// Whether a token looks like one: what is in it is tested where it is read.
func (s *sidecar) told(draining bool) http.HandlerFunc {
	return func(answer http.ResponseWriter, request *http.Request) {
		token, isBearer := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		if request.Method != http.MethodPost || !isBearer || strings.Count(token, ".") != 1 {
			answer.WriteHeader(http.StatusForbidden)
			fmt.Fprintln(answer, "this is no token")
			return
		}
		s.Lock()
		defer s.Unlock()
		s.draining = draining
		fmt.Printf("draining is %v\n", draining)
	}
}

func (s *sidecar) set(_ http.ResponseWriter, request *http.Request) {
	s.Lock()
	defer s.Unlock()
	query := request.URL.Query()
	if value, err := strconv.Atoi(query.Get("in_flight")); err == nil {
		if s.inFlight > 0 && value == 0 {
			s.idleSince = time.Now()
		}
		s.inFlight = value
	}
	if value, err := strconv.Atoi(query.Get("connections")); err == nil {
		s.connections = value
	}
	if state := query.Get("state"); state != "" {
		s.state = state
	}
	s.lingering = query.Has("lingering")
}

func main() {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	if os.Args[1] == "worker" {
		<-terminate
		return
	}
	go func() {
		<-terminate
		os.Exit(0)
	}()
	s := &sidecar{state: "consuming", idleSince: time.Now()}
	http.HandleFunc("/status", s.status)
	http.HandleFunc("/readyz", s.ready)
	http.HandleFunc("/drain", s.told(true))
	http.HandleFunc("/resume", s.told(false))
	http.HandleFunc("/set", s.set)
	fmt.Println("serving")
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":9464", nil))
	os.Exit(1)
}
