package main

import (
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func vmOf(ref types.ManagedObjectReference) (*simulator.VirtualMachine, soap.HasFault) {
	if vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine); ok {
		return vm, nil
	}
	return nil, refuse(&types.ManagedObjectNotFound{Obj: ref}, "The object '%s' has already been deleted or has not been completely created", ref)
}

// around runs a call that gives a task as a task of ours, which may refuse it before and change things after.
func (s *server) around(call *simulator.Method, run func() (types.AnyType, soap.HasFault)) soap.HasFault {
	return taskBody(call.Name, task(call.This, call.Name, func() (types.AnyType, soap.HasFault) {
		defer s.world.account()
		return run()
	}))
}

func (s *server) createVM(call *simulator.Method) soap.HasFault {
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		vm, refused := s.make(call.Body.(*types.CreateVM_Task))
		if refused != nil {
			return nil, refused
		}
		return vm.Self, nil
	})
}

// make makes a VM.
func (s *server) make(request *types.CreateVM_Task) (*simulator.VirtualMachine, soap.HasFault) {
	folder, ok := simulator.Map.Get(request.This).(*simulator.Folder)
	if !ok {
		return nil, refuse(&types.ManagedObjectNotFound{Obj: request.This}, "The folder has been deleted")
	}
	config := &request.Config
	if refused := duplicate(folder, config.Name); refused != nil {
		return nil, refused
	}
	if config.Files == nil || local(config.Files.VmPathName) == "" {
		return nil, refuse(new(types.InvalidDatastorePath), "Invalid datastore path '%v'", config.Files)
	}
	if refused := knownGuest(config.GuestId); refused != nil {
		return nil, refused
	}
	if refused := s.checkDevices(config, nil); refused != nil {
		return nil, refused
	}
	var answer methods.CreateVM_TaskBody
	if err := s.do(&methods.CreateVM_TaskBody{Req: request}, &answer); err != nil {
		return nil, refusedBy(err)
	}
	result, refused := outcome(answer.Res.Returnval)
	if refused != nil {
		return nil, refused
	}
	vm := simulator.Map.Get(result.(types.ManagedObjectReference)).(*simulator.VirtualMachine)
	if err := s.settle(vm); err != nil {
		return nil, refuse(new(types.FileFault), "%s", err)
	}
	return vm, nil
}

func duplicate(folder *simulator.Folder, name string) soap.HasFault {
	if found := simulator.Map.FindByName(name, folder.ChildEntity); found != nil {
		return refuse(&types.DuplicateName{Name: name, Object: found.Reference()}, "The name '%s' already exists.", name)
	}
	return nil
}

func knownGuest(id string) soap.HasFault {
	for _, known := range simulator.GuestID {
		if id == "" || id == string(known) {
			return nil
		}
	}
	return refuse(&types.InvalidArgument{InvalidProperty: "configSpec.guestId"}, "A specified parameter was not correct: configSpec.guestId")
}

func (s *server) reconfigVM(call *simulator.Method) soap.HasFault {
	request := call.Body.(*types.ReconfigVM_Task)
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		vm, refused := s.unheld(call.This)
		if refused != nil {
			return nil, refused
		}
		if refused := s.checkDevices(&request.Spec, vm); refused != nil {
			return nil, refused
		}
		return nil, s.settled(vm, func() soap.HasFault {
			var answer methods.ReconfigVM_TaskBody
			if err := s.do(&methods.ReconfigVM_TaskBody{Req: request}, &answer); err != nil {
				return refusedBy(err)
			}
			_, refused := outcome(answer.Res.Returnval)
			return refused
		})
	})
}

// settled changes a VM and settles it.
func (s *server) settled(vm *simulator.VirtualMachine, change func() soap.HasFault) soap.HasFault {
	if refused := change(); refused != nil {
		return refused
	}
	if err := s.settle(vm); err != nil {
		return refuse(new(types.FileFault), "%s", err)
	}
	return nil
}

func (s *server) destroy(call *simulator.Method) soap.HasFault {
	if call.This.Type != "VirtualMachine" {
		return refuse(new(types.NotSupported), "only VMs are destroyed here")
	}
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		if _, refused := s.unheld(call.This); refused != nil {
			return nil, refused
		}
		return nil, s.remove(call.This)
	})
}

// remove removes a VM and its files.
func (s *server) remove(ref types.ManagedObjectReference) soap.HasFault {
	vm, refused := vmOf(ref)
	if refused != nil {
		return refused
	}
	kept := snapshots(vm)
	var answer methods.Destroy_TaskBody
	if err := s.do(&methods.Destroy_TaskBody{Req: &types.Destroy_Task{This: ref}}, &answer); err != nil {
		return refusedBy(err)
	}
	if _, refused := outcome(answer.Res.Returnval); refused != nil {
		return refused
	}
	for _, snapshot := range kept {
		os.RemoveAll(s.keep(snapshot.Snapshot))
	}
	delete(s.world.tools, ref)
	delete(s.world.addresses, ref)
	return nil
}

func (s *server) unregisterVM(call *simulator.Method) soap.HasFault {
	if _, refused := s.unheld(call.This); refused != nil {
		return refused
	}
	answer := new(methods.UnregisterVMBody)
	if err := s.do(&methods.UnregisterVMBody{Req: call.Body.(*types.UnregisterVM)}, answer); err != nil {
		return refusedBy(err)
	}
	return answer
}

// unheld is a VM that no lease holds.
func (s *server) unheld(ref types.ManagedObjectReference) (*simulator.VirtualMachine, soap.HasFault) {
	vm, refused := vmOf(ref)
	if refused != nil {
		return nil, refused
	}
	if lease := s.leases.holding(ref); lease != nil {
		return nil, refuse(&types.TaskInProgress{Task: lease.Self}, "Another task is already in progress.")
	}
	return vm, nil
}
