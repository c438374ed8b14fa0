package main

import (
	"os"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// checkDevices refuses changes that the simulator would panic at or take in silence, and completes what it wants to be told.
// There is no VM yet where one is being made.
func (s *server) checkDevices(spec *types.VirtualMachineConfigSpec, vm *simulator.VirtualMachine) soap.HasFault {
	for i, change := range spec.DeviceChange {
		changed := change.GetVirtualDeviceConfigSpec()
		if changed.Device == nil {
			return refuse(&types.InvalidDeviceSpec{DeviceIndex: int32(i)}, "Invalid configuration for device '%d'.", i)
		}
		var current types.BaseVirtualDevice
		if vm != nil {
			current = object.VirtualDeviceList(vm.Config.Hardware.Device).FindByKey(changed.Device.GetVirtualDevice().Key)
		}
		var refused soap.HasFault
		switch changed.Operation {
		case types.VirtualDeviceConfigSpecOperationAdd:
			refused = s.checkAdded(changed)
		case types.VirtualDeviceConfigSpecOperationEdit:
			refused = checkEdited(i, changed, current)
		case types.VirtualDeviceConfigSpecOperationRemove:
			if current == nil {
				return refuse(&types.InvalidDeviceSpec{DeviceIndex: int32(i)}, "Invalid configuration for device '%d'.", i)
			}
			// What is there counts, not what a client says of it.
			changed.Device = current
		}
		if refused != nil {
			return refused
		}
	}
	return nil
}

func (s *server) checkAdded(change *types.VirtualDeviceConfigSpec) soap.HasFault {
	switch device := change.Device.(type) {
	case *types.VirtualDisk:
		return s.checkAddedDisk(change, device)
	case types.BaseVirtualEthernetCard:
		if backing, ok := device.GetVirtualEthernetCard().Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
			for _, network := range simulator.Map.All("Network") {
				if network.Entity().Name == backing.DeviceName {
					return nil
				}
			}
			return refuse(new(types.InvalidDeviceBacking), "Invalid backing: there is no network '%s'.", backing.DeviceName)
		}
	}
	return nil
}

func (s *server) checkAddedDisk(change *types.VirtualDeviceConfigSpec, disk *types.VirtualDisk) soap.HasFault {
	if disk.UnitNumber == nil {
		return refuse(new(types.InvalidDeviceSpec), "A disk needs a unit number.")
	}
	if change.FileOperation != "" {
		if bytesOf(disk) <= 0 || bytesOf(disk)%512 != 0 {
			return refuse(new(types.InvalidDeviceSpec), "A disk of %d bytes cannot be made.", bytesOf(disk))
		}
		return nil
	}
	info, err := os.Stat(content(fileOf(disk)))
	if err != nil {
		return refuse(&types.FileNotFound{FileFault: types.FileFault{File: fileOf(disk)}}, "File %s was not found", fileOf(disk))
	}
	if vm := heldBy(fileOf(disk)); vm != nil && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		return refuse(&types.FileLocked{FileFault: types.FileFault{File: fileOf(disk)}}, "Unable to access file %s since it is locked", fileOf(disk))
	}
	// A disk that exists is as large as it is, whatever a client says.
	setBytes(disk, info.Size())
	return nil
}

func checkEdited(i int, change *types.VirtualDeviceConfigSpec, current types.BaseVirtualDevice) soap.HasFault {
	if current == nil {
		return refuse(&types.InvalidDeviceSpec{DeviceIndex: int32(i)}, "Invalid configuration for device '%d'.", i)
	}
	// The simulator writes into it.
	device := change.Device.GetVirtualDevice()
	if device.DeviceInfo == nil {
		device.DeviceInfo = new(types.Description)
	}
	disk, isDisk := change.Device.(*types.VirtualDisk)
	before, wasDisk := current.(*types.VirtualDisk)
	if !isDisk || !wasDisk {
		return nil
	}
	if fileOf(disk) != fileOf(before) {
		return refuse(new(types.InvalidDeviceBacking), "The file of a disk cannot be changed.")
	}
	if bytesOf(disk) < bytesOf(before) {
		return refuse(new(types.InvalidDeviceSpec), "A disk cannot be made smaller.")
	}
	if disk.CapacityInKB*1024 > disk.CapacityInBytes {
		disk.CapacityInBytes = disk.CapacityInKB * 1024
	}
	return nil
}
