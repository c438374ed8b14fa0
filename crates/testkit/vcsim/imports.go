package main

import (
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// canceled is how a lease ends whose task somebody cancels.
var canceled = refuse(new(types.RequestCanceled), "The task was canceled by a user.")

// begin has the task of an import run for as long as its lease lives: a task of the resource pool, and one of the VM's recent ones. Whoever
// calls holds the world.
func (l *lease) begin(pool types.ManagedObjectReference) {
	entity, now := l.Info.Entity, time.Now()
	l.task = simulator.CreateTask(pool, "ImportVAppLRO", nil)
	l.task.Info.Entity, l.task.Info.StartTime = &entity, &now
	l.task.Info.State, l.task.Info.Cancelable = types.TaskInfoStateRunning, true
	if vm, ok := simulator.Map.Get(entity).(*simulator.VirtualMachine); ok {
		vm.RecentTask = append(vm.RecentTask, l.task.Self)
	}
}

// settle ends the task of an import.
func (l *lease) settle(state types.TaskInfoState) {
	if l.task != nil {
		simulator.Map.Update(l.task, []types.PropertyChange{
			{Name: "info.completeTime", Val: time.Now()}, {Name: "info.state", Val: state},
		})
	}
}

// cancelTask may be called by any session of the user's, as at a vCenter.
func (s *server) cancelTask(call *simulator.Method) soap.HasFault {
	for _, lease := range s.leases.all() {
		if lease.task != nil && lease.task.Self == call.This {
			lease.fail(s, canceled)
			return &methods.CancelTaskBody{Res: new(types.CancelTaskResponse)}
		}
	}
	return refuse(new(types.NotSupported), "The operation is not supported on the object.")
}

// relocate moves a VM to another host, as DRS does. A lease keeps it where it is.
func (s *server) relocate(call *simulator.Method) soap.HasFault {
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		if _, refused := s.unheld(call.This); refused != nil {
			return nil, refused
		}
		var answer methods.RelocateVM_TaskBody
		if err := s.do(&methods.RelocateVM_TaskBody{Req: call.Body.(*types.RelocateVM_Task)}, &answer); err != nil {
			return nil, refusedBy(err)
		}
		_, refused := outcome(answer.Res.Returnval)
		return nil, refused
	})
}
