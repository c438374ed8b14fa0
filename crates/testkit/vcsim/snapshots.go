package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// keep is the folder with what a snapshot's disks held.
func (s *server) keep(snapshot types.ManagedObjectReference) string {
	return filepath.Join(s.work, "snapshots", snapshot.Value)
}

// kept is the file with what a disk of a snapshot held.
func (s *server) kept(snapshot types.ManagedObjectReference, disk *types.VirtualDisk) string {
	return filepath.Join(s.keep(snapshot), fmt.Sprint(disk.Key))
}

// snapshots are all of a VM.
func snapshots(vm *simulator.VirtualMachine) (all []types.VirtualMachineSnapshotTree) {
	if vm.Snapshot == nil {
		return nil
	}
	open := vm.Snapshot.RootSnapshotList
	for len(open) > 0 {
		next := open[0]
		all = append(all, next)
		open = append(append([]types.VirtualMachineSnapshotTree{}, open[1:]...), next.ChildSnapshotList...)
	}
	return all
}

func (s *server) createSnapshot(call *simulator.Method) soap.HasFault {
	request := call.Body.(*types.CreateSnapshot_Task)
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		vm, refused := s.unheld(call.This)
		if refused != nil {
			return nil, refused
		}
		running := vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
		if request.Quiesce && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn && !running {
			return nil, refuse(new(types.ToolsUnavailable), "Cannot quiesce: VMware Tools is not running in this virtual machine.")
		}
		var answer methods.CreateSnapshot_TaskBody
		if err := s.do(&methods.CreateSnapshot_TaskBody{Req: request}, &answer); err != nil {
			return nil, refusedBy(err)
		}
		result, refused := outcome(answer.Res.Returnval)
		if refused != nil {
			return nil, refused
		}
		if err := s.copyDisks(vm, result.(types.ManagedObjectReference)); err != nil {
			return nil, refuse(new(types.FileFault), "%s", err)
		}
		return result, nil
	})
}

func (s *server) copyDisks(vm *simulator.VirtualMachine, snapshot types.ManagedObjectReference) error {
	if err := os.MkdirAll(s.keep(snapshot), 0700); err != nil {
		return err
	}
	for _, disk := range disks(vm.Config) {
		copied := exec.Command("cp", "--sparse=always", "--reflink=auto", content(fileOf(disk)), s.kept(snapshot, disk))
		if said, err := copied.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %s", err, said)
		}
	}
	return nil
}

func (s *server) removeSnapshot(call *simulator.Method) soap.HasFault {
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		snapshot, ok := simulator.Map.Get(call.This).(*simulator.VirtualMachineSnapshot)
		if !ok {
			return nil, refuse(&types.ManagedObjectNotFound{Obj: call.This}, "The object '%s' has already been deleted", call.This.Value)
		}
		if _, refused := s.unheld(snapshot.Vm); refused != nil {
			return nil, refused
		}
		var answer methods.RemoveSnapshot_TaskBody
		if err := s.do(&methods.RemoveSnapshot_TaskBody{Req: call.Body.(*types.RemoveSnapshot_Task)}, &answer); err != nil {
			return nil, refusedBy(err)
		}
		_, refused := outcome(answer.Res.Returnval)
		if refused == nil {
			os.RemoveAll(s.keep(call.This))
		}
		return nil, refused
	})
}
