package main

import (
	"fmt"
	"net/url"
	"sort"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (s *server) exportVM(call *simulator.Method) soap.HasFault {
	vm, refused := s.unheld(call.This)
	if refused != nil {
		return refused
	}
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		return refuse(&types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: vm.Runtime.PowerState,
		}, "The attempted operation cannot be performed in the current state (Powered on).")
	}
	granted := s.grant(vm.Self, false, leasable(vm, vm.Config, func(disk *types.VirtualDisk) string { return content(fileOf(disk)) }))
	return &methods.ExportVmBody{Res: &types.ExportVmResponse{Returnval: granted.Self}}
}

func (s *server) exportSnapshot(call *simulator.Method) soap.HasFault {
	snapshot, ok := simulator.Map.Get(call.This).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return refuse(&types.ManagedObjectNotFound{Obj: call.This}, "The object '%s' has already been deleted", call.This.Value)
	}
	vm, refused := s.unheld(snapshot.Vm)
	if refused != nil {
		return refused
	}
	found := leasable(vm, &snapshot.Config, func(disk *types.VirtualDisk) string { return s.kept(call.This, disk) })
	granted := s.grant(vm.Self, false, found)
	return &methods.ExportSnapshotBody{Res: &types.ExportSnapshotResponse{Returnval: granted.Self}}
}

// importVApp makes the VM at once, with empty disks: whoever asks learns of it through the lease.
func (s *server) importVApp(call *simulator.Method) soap.HasFault {
	request := call.Body.(*types.ImportVApp)
	spec, ok := request.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		return refuse(new(types.NotSupported), "only VMs are imported here")
	}
	if request.Folder == nil {
		return refuse(&types.InvalidArgument{InvalidProperty: "folder"}, "A specified parameter was not correct: folder")
	}
	vm, refused := s.make(&types.CreateVM_Task{This: *request.Folder, Config: spec.ConfigSpec, Pool: request.This, Host: request.Host})
	if refused != nil {
		return refused
	}
	granted := s.grant(vm.Self, true, leasable(vm, vm.Config, func(disk *types.VirtualDisk) string { return content(fileOf(disk)) }))
	granted.begin(call.This)
	return &methods.ImportVAppBody{Res: &types.ImportVAppResponse{Returnval: granted.Self}}
}

// leasable are the disks of a VM with their contents, by target id.
func leasable(vm *simulator.VirtualMachine, config *types.VirtualMachineConfigInfo, file func(*types.VirtualDisk) string) map[string]*leased {
	found := map[string]*leased{}
	for i, disk := range disks(config) {
		unit := int32(0)
		if disk.UnitNumber != nil {
			unit = *disk.UnitNumber
		}
		id := fmt.Sprintf("disk-%d.vmdk", i)
		found[id] = &leased{file: file(disk), bytes: bytesOf(disk), url: types.HttpNfcLeaseDeviceUrl{
			Key:       fmt.Sprintf("/%s/%s%d:%d", vm.Self.Value, controllerOf(config, disk.ControllerKey), disk.ControllerKey%10, unit),
			ImportKey: fmt.Sprintf("/%s/%s%d:%d", config.Name, controllerOf(config, disk.ControllerKey), disk.ControllerKey%10, unit),
			Disk:      types.NewBool(true),
			TargetId:  id,
		}}
	}
	return found
}

// controllerOf is the type of a controller as keys of leases have it.
func controllerOf(config *types.VirtualMachineConfigInfo, key int32) string {
	for _, device := range config.Hardware.Device {
		if device.GetVirtualDevice().Key == key {
			return strings.TrimPrefix(fmt.Sprintf("%T", device), "*types.")
		}
	}
	return "VirtualController"
}

func order(disks map[string]*leased) (ids []string) {
	for id := range disks {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(a, b int) bool {
		return len(ids[a]) < len(ids[b]) || len(ids[a]) == len(ids[b]) && ids[a] < ids[b]
	})
	return ids
}

// diskURL is where a disk of a lease is moved.
func (s *server) diskURL(lease, id string) string {
	host := s.base.Host
	if s.star {
		host = "*:" + s.base.Port()
	}
	if elsewhere := s.faults.host(); elsewhere != "" {
		host = elsewhere
	}
	// Escaping would spoil the *.
	return "https://" + host + (&url.URL{Path: "/nfc/" + lease + "/" + id}).EscapedPath()
}
