package main

import (
	"errors"
	"os"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (s *server) powerOn(call *simulator.Method) soap.HasFault {
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		vm, refused := s.unheld(call.This)
		if refused != nil {
			return nil, refused
		}
		return nil, s.start(vm)
	})
}

// start powers a VM on. Its guest's tools run at once, where it has any.
func (s *server) start(vm *simulator.VirtualMachine) soap.HasFault {
	for _, disk := range disks(vm.Config) {
		if _, err := os.Stat(content(fileOf(disk))); err != nil {
			return refuse(&types.FileNotFound{FileFault: types.FileFault{File: fileOf(disk)}}, "File %s was not found", fileOf(disk))
		}
	}
	var answer methods.PowerOnVM_TaskBody
	if err := s.do(&methods.PowerOnVM_TaskBody{Req: &types.PowerOnVM_Task{This: vm.Self}}, &answer); err != nil {
		return refusedBy(err)
	}
	if _, refused := outcome(answer.Res.Returnval); refused != nil {
		return refused
	}
	s.showTools(vm, s.world.tools[vm.Self])
	return nil
}

func (s *server) powerOff(call *simulator.Method) soap.HasFault {
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		vm, refused := vmOf(call.This)
		if refused != nil {
			return nil, refused
		}
		var answer methods.PowerOffVM_TaskBody
		if err := s.do(&methods.PowerOffVM_TaskBody{Req: call.Body.(*types.PowerOffVM_Task)}, &answer); err != nil {
			return nil, refusedBy(err)
		}
		s.showTools(vm, false)
		_, refused = outcome(answer.Res.Returnval)
		return nil, refused
	})
}

// stop pulls a VM's plug.
func (s *server) stop(vm *simulator.VirtualMachine) error {
	var answer methods.PowerOffVM_TaskBody
	if err := s.do(&methods.PowerOffVM_TaskBody{Req: &types.PowerOffVM_Task{This: vm.Self}}, &answer); err != nil {
		return err
	}
	s.showTools(vm, false)
	if _, refused := outcome(answer.Res.Returnval); refused != nil {
		return errors.New(refused.Fault().String)
	}
	return nil
}

// shutdownGuest needs tools that run, as in earnest.
func (s *server) shutdownGuest(call *simulator.Method) soap.HasFault {
	vm, refused := vmOf(call.This)
	if refused != nil {
		return refused
	}
	if vm.Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		return refuse(new(types.ToolsUnavailable), "Cannot complete operation because VMware Tools is not running in this virtual machine.")
	}
	answer := new(methods.ShutdownGuestBody)
	if err := s.do(&methods.ShutdownGuestBody{Req: call.Body.(*types.ShutdownGuest)}, answer); err != nil {
		return refusedBy(err)
	}
	s.showTools(vm, false)
	return answer
}

func (s *server) showTools(vm *simulator.VirtualMachine, running bool) {
	status, run, heart := types.VirtualMachineToolsStatusToolsNotRunning,
		types.VirtualMachineToolsRunningStatusGuestToolsNotRunning, types.ManagedEntityStatusGray
	if running {
		status, run, heart = types.VirtualMachineToolsStatusToolsOk,
			types.VirtualMachineToolsRunningStatusGuestToolsRunning, types.ManagedEntityStatusGreen
	}
	if !s.world.tools[vm.Self] {
		status = types.VirtualMachineToolsStatusToolsNotInstalled
	}
	net, first := s.guestNet(vm, running && s.world.tools[vm.Self])
	simulator.Map.Update(vm, []types.PropertyChange{
		{Name: "guest.toolsStatus", Val: status},
		{Name: "guest.toolsRunningStatus", Val: string(run)},
		{Name: "guest.net", Val: net},
		{Name: "guest.ipAddress", Val: first},
		{Name: "guestHeartbeatStatus", Val: heart},
	})
}

// guestNet is what a guest says of its interfaces, and its first address.
func (s *server) guestNet(vm *simulator.VirtualMachine, tells bool) (net []types.GuestNicInfo, first string) {
	net = append([]types.GuestNicInfo{}, vm.Guest.Net...)
	for i := range net {
		net[i].IpAddress = nil
		if tells {
			net[i].IpAddress = s.world.addresses[vm.Self][strings.ToLower(net[i].MacAddress)]
		}
		if first == "" && len(net[i].IpAddress) > 0 {
			first = net[i].IpAddress[0]
		}
	}
	return net, first
}
