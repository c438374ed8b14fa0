package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type seenVM struct {
	Ref         string            `json:"ref"`
	Name        string            `json:"name"`
	Folder      string            `json:"folder"`
	Host        string            `json:"host"`
	On          bool              `json:"on"`
	Firmware    string            `json:"firmware"`
	SecureBoot  bool              `json:"secure_boot"`
	CPUs        int32             `json:"cpus"`
	MemoryMB    int32             `json:"memory_mb"`
	GuestID     string            `json:"guest_id"`
	Annotation  string            `json:"annotation"`
	ExtraConfig map[string]string `json:"extra_config"`
	Disks       []seenDisk        `json:"disks"`
	Nics        []seenNic         `json:"nics"`
	Snapshots   []string          `json:"snapshots"`
}

type seenDisk struct {
	Key        int32  `json:"key"`
	File       string `json:"file"`
	Content    string `json:"content"`
	Bytes      int64  `json:"bytes"`
	Controller string `json:"controller"`
	Bus        int32  `json:"bus"`
	Unit       int32  `json:"unit"`
	Thin       bool   `json:"thin"`
}

type seenNic struct {
	Model       string `json:"model"`
	MAC         string `json:"mac"`
	AddressType string `json:"address_type"`
	Network     string `json:"network"`
}

type seenLease struct {
	Ref    string `json:"ref"`
	VM     string `json:"vm"`
	Import bool   `json:"import"`
}

type seen struct {
	VMs      []seenVM    `json:"vms"`
	Leases   []seenLease `json:"leases"`
	Files    []string    `json:"files"`
	Sessions int         `json:"sessions"`
}

// state is everything that a test may look for. Whoever calls holds the world.
func (s *server) state() *seen {
	found := &seen{VMs: []seenVM{}, Leases: []seenLease{}, Files: files(), Sessions: len(s.sessions.all())}
	for _, entity := range simulator.Map.All("VirtualMachine") {
		if vm := entity.(*simulator.VirtualMachine); vm.Config != nil {
			found.VMs = append(found.VMs, describeVM(vm))
		}
	}
	for _, lease := range s.leases.all() {
		found.Leases = append(found.Leases, seenLease{lease.Self.Value, lease.Info.Entity.Value, lease.imports})
	}
	return found
}

func describeVM(vm *simulator.VirtualMachine) seenVM {
	found := seenVM{
		Ref: vm.Self.Value, Name: vm.Name, Firmware: vm.Config.Firmware, CPUs: vm.Config.Hardware.NumCPU,
		MemoryMB: vm.Config.Hardware.MemoryMB, GuestID: vm.Config.GuestId, Annotation: vm.Config.Annotation,
		On:          vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn,
		ExtraConfig: map[string]string{}, Disks: []seenDisk{}, Nics: []seenNic{}, Snapshots: []string{},
	}
	if boot := vm.Config.BootOptions; boot != nil && boot.EfiSecureBootEnabled != nil {
		found.SecureBoot = *boot.EfiSecureBootEnabled
	}
	if folder, ok := simulator.Map.Get(*vm.Parent).(*simulator.Folder); ok {
		found.Folder = folder.Name
	}
	if host, ok := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem); ok {
		found.Host = host.Name
	}
	for _, option := range vm.Config.ExtraConfig {
		value := option.GetOptionValue()
		found.ExtraConfig[value.Key] = fmt.Sprint(value.Value)
	}
	for _, disk := range disks(vm.Config) {
		found.Disks = append(found.Disks, describeDisk(vm.Config, disk))
	}
	for _, device := range vm.Config.Hardware.Device {
		if nic, ok := device.(types.BaseVirtualEthernetCard); ok {
			found.Nics = append(found.Nics, describeNic(device, nic.GetVirtualEthernetCard()))
		}
	}
	for _, snapshot := range snapshots(vm) {
		found.Snapshots = append(found.Snapshots, snapshot.Name)
	}
	return found
}

func describeDisk(config *types.VirtualMachineConfigInfo, disk *types.VirtualDisk) seenDisk {
	found := seenDisk{Key: disk.Key, File: fileOf(disk), Content: content(fileOf(disk)), Bytes: bytesOf(disk)}
	found.Controller = controllerOf(config, disk.ControllerKey)
	for _, device := range config.Hardware.Device {
		if controller, ok := device.(types.BaseVirtualController); ok && device.GetVirtualDevice().Key == disk.ControllerKey {
			found.Bus = controller.GetVirtualController().BusNumber
		}
	}
	if disk.UnitNumber != nil {
		found.Unit = *disk.UnitNumber
	}
	if flat, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && flat.ThinProvisioned != nil {
		found.Thin = *flat.ThinProvisioned
	}
	return found
}

func describeNic(device types.BaseVirtualDevice, card *types.VirtualEthernetCard) seenNic {
	found := seenNic{MAC: card.MacAddress, AddressType: card.AddressType}
	found.Model = strings.TrimPrefix(fmt.Sprintf("%T", device), "*types.")
	switch backing := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		found.Network = backing.DeviceName
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		for _, network := range simulator.Map.All("DistributedVirtualPortgroup") {
			if network.Reference().Value == backing.Port.PortgroupKey {
				found.Network = network.Entity().Name
			}
		}
	}
	return found
}

func setTimeout(s *server, d *json.Decoder) (interface{}, error) {
	var said struct{ Ms int64 }
	err := d.Decode(&said)
	s.world.Lock()
	defer s.world.Unlock()
	s.leaseTimeout = time.Duration(said.Ms) * time.Millisecond
	return true, err
}
