package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// rule says how the next calls of a method go wrong.
type rule struct {
	Method string `json:"method"`
	// Fault is the type of what it answers with, such as NoPermission; none hangs up.
	Fault   string `json:"fault"`
	Message string `json:"message"`
	// Fields of the fault.
	Fields json.RawMessage `json:"fields"`
	// Task has the call succeed and its task fail.
	Task bool `json:"task"`
	// Late has the call be made, and then hangs up.
	Late bool `json:"late"`
	// Forgotten has the call give a task that the server does not know any more, as after a restart; nothing was done.
	Forgotten bool `json:"forgotten"`
	// Held has the task of the call run until /go-on.
	Held bool `json:"held"`
	// Skip is how many calls go well before, Times how many go wrong then: one by default.
	Skip  int `json:"skip"`
	Times int `json:"times"`
}

type rules struct {
	sync.Mutex
	set []*rule
}

func (r *rules) add(added *rule) error {
	if added.Times == 0 {
		added.Times = 1
	}
	if added.Fault != "" {
		if _, err := added.fault(); err != nil {
			return err
		}
	}
	r.Lock()
	defer r.Unlock()
	r.set = append(r.set, added)
	return nil
}

func (r *rules) clear() {
	r.Lock()
	defer r.Unlock()
	r.set = nil
}

// answer gives what a call answers with instead of being made; nothing where it hangs up.
func (r *rule) answer(call *simulator.Method) soap.HasFault {
	if r.Forgotten {
		return taskBody(call.Name, types.ManagedObjectReference{Type: "Task", Value: "task-forgotten"})
	}
	if r.Fault == "" {
		return nil
	}
	fault, _ := r.fault()
	refusal := refuse(fault, "%s", r.Message)
	if !r.Task {
		return refusal
	}
	name := strings.TrimSuffix(call.Name, "_Task")
	return taskBody(call.Name, task(call.This, name, func() (types.AnyType, soap.HasFault) { return nil, refusal }))
}

// take is how this call of a method goes wrong, if it does.
func (r *rules) take(method string) *rule {
	r.Lock()
	defer r.Unlock()
	for _, rule := range r.set {
		if rule.Method != method || rule.Times == 0 {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			return nil
		}
		rule.Times--
		return rule
	}
	return nil
}

func (r *rule) fault() (types.BaseMethodFault, error) {
	kind, ok := types.TypeFunc()(r.Fault)
	if !ok {
		return nil, fmt.Errorf("there is no fault %s", r.Fault)
	}
	made := reflect.New(kind)
	fault, ok := made.Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%s is no fault", r.Fault)
	}
	if len(r.Fields) > 0 {
		if err := json.Unmarshal(r.Fields, made.Interface()); err != nil {
			return nil, err
		}
	}
	return fault, nil
}

// taskBody is the answer of any method that gives a task.
func taskBody(method string, ref types.ManagedObjectReference) soap.HasFault {
	return &taskStarted{Res: &taskAnswer{method: method, Returnval: ref}}
}

type taskStarted struct{ Res *taskAnswer }

func (*taskStarted) Fault() *soap.Fault { return nil }

type taskAnswer struct {
	method    string
	Returnval types.ManagedObjectReference `xml:"returnval"`
}
