package main

import (
	"net/http"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
)

// sessions are those that were opened here and have not been ended.
type sessions struct {
	sync.Mutex
	live map[string]bool
}

func (s *sessions) init() { s.live = map[string]bool{} }

// of is the live session that a request belongs to, or nothing.
func (s *sessions) of(r *http.Request) string {
	cookie, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return ""
	}
	key := strings.Trim(cookie.Value, `"`)
	s.Lock()
	defer s.Unlock()
	if !s.live[key] {
		return ""
	}
	return key
}

func (s *sessions) opened(answer http.Header) {
	s.Lock()
	defer s.Unlock()
	for _, cookie := range (&http.Response{Header: answer}).Cookies() {
		if cookie.Name == soap.SessionCookieName {
			s.live[cookie.Value] = true
		}
	}
}

func (s *sessions) all() []string {
	s.Lock()
	defer s.Unlock()
	var keys []string
	for key := range s.live {
		keys = append(keys, key)
	}
	return keys
}

// end ends a session. Its leases go with it, as they belong to it.
func (s *server) end(key string) {
	s.sessions.Lock()
	delete(s.sessions.live, key)
	s.sessions.Unlock()
	for _, lease := range s.leases.all() {
		if lease.session == key {
			lease.failLater(s, endedWithSession)
		}
	}
}

// endAll ends all sessions, and says how many there were.
func (s *server) endAll() int {
	keys := s.sessions.all()
	for _, key := range keys {
		s.end(key)
	}
	return len(keys)
}

// calls are the names of what was called, in order.
type calls struct {
	sync.Mutex
	made []callMade
}

type callMade struct {
	Method string `json:"method"`
	Type   string `json:"type"`
	This   string `json:"this"`
}

func (c *calls) add(call *simulator.Method) {
	c.Lock()
	defer c.Unlock()
	c.made = append(c.made, callMade{call.Name, call.This.Type, call.This.Value})
}

func (c *calls) all() []callMade {
	c.Lock()
	defer c.Unlock()
	return append([]callMade{}, c.made...)
}
