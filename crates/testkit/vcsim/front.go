package main

import (
	"bytes"
	"context"
	"fmt"
	"io/ioutil"
	"net/http"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// method is what we do instead of, or around, the simulator's own.
type method func(*server, *simulator.Method) soap.HasFault

var ours = map[string]method{
	"ExportVm":                            (*server).exportVM,
	"ExportSnapshot":                      (*server).exportSnapshot,
	"ImportVApp":                          (*server).importVApp,
	"HttpNfcLeaseProgress":                (*server).leaseProgress,
	"HttpNfcLeaseComplete":                (*server).leaseComplete,
	"HttpNfcLeaseAbort":                   (*server).leaseAbort,
	"HttpNfcLeaseGetManifest":             (*server).leaseManifest,
	"HttpNfcLeaseSetManifestChecksumType": (*server).leaseChecksumType,
	"CreateVM_Task":                       (*server).createVM,
	"ReconfigVM_Task":                     (*server).reconfigVM,
	"Destroy_Task":                        (*server).destroy,
	"UnregisterVM":                        (*server).unregisterVM,
	"PowerOnVM_Task":                      (*server).powerOn,
	"PowerOffVM_Task":                     (*server).powerOff,
	"ShutdownGuest":                       (*server).shutdownGuest,
	"CreateSnapshot_Task":                 (*server).createSnapshot,
	"RemoveSnapshot_Task":                 (*server).removeSnapshot,
	"MoveVirtualDisk_Task":                (*server).moveDisk,
	"DeleteVirtualDisk_Task":              (*server).deleteDisk,
	"RefreshDatastore":                    (*server).refreshDatastore,
	"CancelTask":                          (*server).cancelTask,
	"RelocateVM_Task":                     (*server).relocate,
}

// unasked is what may be called before a login.
var unasked = map[string]bool{"RetrieveServiceContent": true, "Login": true}

// waiting is what may take long, and so must not keep others out.
var waiting = map[string]bool{"WaitForUpdatesEx": true, "WaitForUpdates": true}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	// Disks are with the hosts, which run on.
	case strings.HasPrefix(r.URL.Path, "/nfc/"):
		s.serveTransfer(w, r)
	case s.faults.isAway():
		http.Error(w, "503 Service Unavailable (Failed to connect to endpoint)", http.StatusServiceUnavailable)
	case strings.HasPrefix(r.URL.Path, "/folder"):
		s.serveFolder(w, r)
	case r.URL.Path == "/sdk" && r.Method == http.MethodPost:
		s.serveCall(w, r)
	default:
		s.inner.ServeHTTP(w, r)
	}
}

func (s *server) serveCall(w http.ResponseWriter, r *http.Request) {
	text, err := ioutil.ReadAll(r.Body)
	if err != nil {
		return
	}
	call, err := simulator.UnmarshalBody(typeOf, text)
	if err != nil {
		reply(w, refuse(new(types.InvalidRequest), "%s", err))
		return
	}
	session := s.sessions.of(r)
	s.calls.add(call)
	if wrong := s.rules.take(call.Name); wrong != nil && wrong.Late {
		defer hangUp(w)
		w = unheard{http.Header{}}
	} else if wrong != nil && wrong.Held {
		reply(w, s.hold(call))
		return
	} else if wrong != nil {
		if body := wrong.answer(call); body != nil {
			reply(w, body)
		} else {
			hangUp(w)
		}
		return
	}
	if session == "" && !unasked[call.Name] {
		reply(w, refuse(&types.NotAuthenticated{NoPermission: types.NoPermission{
			Object: call.This, PrivilegeId: "System.View",
		}}, "The session is not authenticated."))
		return
	}
	if !waiting[call.Name] {
		s.world.Lock()
		defer s.world.Unlock()
	}
	s.world.session = session
	if own := ours[call.Name]; own != nil {
		reply(w, own(s, call))
		return
	}
	r.Body = ioutil.NopCloser(bytes.NewReader(text))
	r.ContentLength = int64(len(text))
	s.inner.ServeHTTP(w, r)
	switch call.Name {
	case "Login":
		s.sessions.opened(w.Header())
	case "Logout":
		s.end(session)
	}
}

// typeOf finds a type by its name, whatever prefix a client gives the namespace.
func typeOf(name string) (reflect.Type, bool) {
	return types.TypeFunc()(name[strings.LastIndex(name, ":")+1:])
}

// do calls the simulator itself. What it panics at becomes a fault.
func (s *server) do(request, response soap.HasFault) (err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			err = soap.WrapSoapFault(simulator.Fault(fmt.Sprint(trouble), new(types.InvalidArgument)))
		}
	}()
	return s.service.RoundTrip(context.Background(), request, response)
}

// refusedBy is the body for what do gave.
func refusedBy(err error) soap.HasFault {
	if soap.IsSoapFault(err) {
		return &failed{soap.ToSoapFault(err)}
	}
	return refuse(new(types.RuntimeFault), "%s", err)
}

// task runs something as a task of an object, and gives its reference.
func task(of types.ManagedObjectReference, name string, run func() (types.AnyType, soap.HasFault)) types.ManagedObjectReference {
	message := ""
	made := simulator.CreateTask(of, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		result, refused := run()
		if refused == nil {
			return result, nil
		}
		fault, text := lift(refused)
		message = text
		return nil, fault
	})
	ref := made.Run()
	if made.Info.Error != nil {
		made.Info.Error.LocalizedMessage = message
	}
	return ref
}

// outcome is how a task of the simulator's own ended; those end before they are given.
func outcome(ref types.ManagedObjectReference) (types.AnyType, soap.HasFault) {
	info := simulator.Map.Get(ref).(*simulator.Task).Info
	if info.Error != nil {
		return nil, refuse(info.Error.Fault.(types.BaseMethodFault), "%s", strings.TrimPrefix(info.Error.LocalizedMessage, "*types."))
	}
	return info.Result, nil
}

// unheard is where an answer goes that nobody gets.
type unheard struct{ header http.Header }

func (u unheard) Header() http.Header           { return u.header }
func (unheard) Write(bytes []byte) (int, error) { return len(bytes), nil }
func (unheard) WriteHeader(int)                 {}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) {
	if connection, _, err := w.(http.Hijacker).Hijack(); err == nil {
		connection.Close()
	}
}
