package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// seed is a VM that a test wants to find.
type seed struct {
	Name       string     `json:"name"`
	Folder     string     `json:"folder"`
	Datastore  string     `json:"datastore"`
	Firmware   string     `json:"firmware"`
	SecureBoot bool       `json:"secure_boot"`
	CPUs       int32      `json:"cpus"`
	MemoryMB   int64      `json:"memory_mb"`
	GuestID    string     `json:"guest_id"`
	Annotation string     `json:"annotation"`
	Disks      []seedDisk `json:"disks"`
	Nics       []seedNic  `json:"nics"`
	On         bool       `json:"on"`
	Tools      bool       `json:"tools"`
}

type seedDisk struct {
	// An image, and its format.
	Path       string `json:"path"`
	Format     string `json:"format"`
	Controller string `json:"controller"`
	Mode       string `json:"mode"`
	Thick      bool   `json:"thick"`
}

type seedNic struct {
	MAC     string `json:"mac"`
	Model   string `json:"model"`
	Network string `json:"network"`
	// What its guest says that it has there, when VMware Tools run.
	Addresses []string `json:"addresses"`
}

// plant makes a VM with its disks filled.
func (s *server) plant(wanted *seed) (string, error) {
	s.world.Lock()
	defer s.world.Unlock()
	config, err := wanted.config()
	if err != nil {
		return "", err
	}
	folder, pool := placeOf(wanted.Folder)
	if folder == nil {
		return "", fmt.Errorf("there is no VM folder %q", wanted.Folder)
	}
	vm, refused := s.make(&types.CreateVM_Task{This: folder.Self, Config: *config, Pool: pool})
	if refused != nil {
		return "", errors.New(refused.Fault().String)
	}
	for i, disk := range disks(vm.Config) {
		filled := exec.Command("qemu-img", "convert", "-f", wanted.Disks[i].Format, "-O", "raw", wanted.Disks[i].Path, content(fileOf(disk)))
		if said, err := filled.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %s", err, said)
		}
	}
	s.world.tools[vm.Self] = wanted.Tools
	s.world.addresses[vm.Self] = map[string][]string{}
	for _, nic := range wanted.Nics {
		s.world.addresses[vm.Self][strings.ToLower(nic.MAC)] = nic.Addresses
	}
	s.showTools(vm, false)
	if wanted.On {
		if refused := s.start(vm); refused != nil {
			return "", errors.New(refused.Fault().String)
		}
	}
	s.world.account()
	return vm.Self.Value, nil
}

// placeOf is the VM folder of that name, or the datacenter's own, and the first resource pool.
func placeOf(name string) (*simulator.Folder, types.ManagedObjectReference) {
	if name == "" {
		name = "vm"
	}
	for _, entity := range simulator.Map.All("Folder") {
		if folder := entity.(*simulator.Folder); folder.Name == name {
			return folder, simulator.Map.Any("ResourcePool").Reference()
		}
	}
	return nil, types.ManagedObjectReference{}
}

func (wanted *seed) config() (*types.VirtualMachineConfigSpec, error) {
	datastore := wanted.Datastore
	if datastore == "" {
		datastore = "LocalDS_0"
	}
	config := &types.VirtualMachineConfigSpec{
		Name: wanted.Name, NumCPUs: wanted.CPUs, MemoryMB: wanted.MemoryMB, GuestId: wanted.GuestID, Annotation: wanted.Annotation,
		Firmware: wanted.Firmware, Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastore + "]"},
	}
	if wanted.SecureBoot {
		config.BootOptions = &types.VirtualMachineBootOptions{EfiSecureBootEnabled: types.NewBool(true)}
	}
	add := func(device types.BaseVirtualDevice, operation types.VirtualDeviceConfigSpecFileOperation) {
		config.DeviceChange = append(config.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: operation, Device: device,
		})
	}
	controllers, units := map[string]int32{}, map[string]int32{}
	for i, disk := range wanted.Disks {
		key, known := controllers[disk.Controller]
		if !known {
			device, err := controller(disk.Controller, int32(len(controllers)))
			if err != nil {
				return nil, err
			}
			key = device.GetVirtualDevice().Key
			controllers[disk.Controller] = key
			add(device, "")
		}
		bytes, err := virtualSize(disk)
		if err != nil {
			return nil, err
		}
		made := wanted.Disks[i].device(int32(2000+i), key, units[disk.Controller], bytes)
		units[disk.Controller]++
		add(made, types.VirtualDeviceConfigSpecFileOperationCreate)
	}
	for i, nic := range wanted.Nics {
		device, err := nic.device(int32(4000 + i))
		if err != nil {
			return nil, err
		}
		add(device, "")
	}
	return config, nil
}

func (d *seedDisk) device(key, controller, unit int32, bytes int64) *types.VirtualDisk {
	mode := d.Mode
	if mode == "" {
		mode = string(types.VirtualDiskModePersistent)
	}
	return &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{Key: key, ControllerKey: controller, UnitNumber: &unit,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{DiskMode: mode, ThinProvisioned: types.NewBool(!d.Thick)}},
		CapacityInKB: bytes / 1024, CapacityInBytes: bytes,
	}
}

func virtualSize(disk seedDisk) (int64, error) {
	said, err := exec.Command("qemu-img", "info", "-f", disk.Format, "--output=json", disk.Path).Output()
	if err != nil {
		return 0, err
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	err = json.Unmarshal(said, &info)
	return info.Size, err
}

// controller makes one of a kind: those of the IDE bus are in every VM.
func controller(kind string, bus int32) (types.BaseVirtualDevice, error) {
	scsi := types.VirtualSCSIController{
		SharedBus:         types.VirtualSCSISharingNoSharing,
		VirtualController: types.VirtualController{BusNumber: bus, VirtualDevice: types.VirtualDevice{Key: 1000 + bus}},
	}
	switch kind {
	case "pvscsi":
		return &types.ParaVirtualSCSIController{VirtualSCSIController: scsi}, nil
	case "lsilogic":
		return &types.VirtualLsiLogicController{VirtualSCSIController: scsi}, nil
	case "lsisas1068":
		return &types.VirtualLsiLogicSASController{VirtualSCSIController: scsi}, nil
	case "buslogic":
		return &types.VirtualBusLogicController{VirtualSCSIController: scsi}, nil
	case "sata":
		made := new(types.VirtualAHCIController)
		made.Key = 15000
		return made, nil
	case "nvme":
		made := new(types.VirtualNVMEController)
		made.Key = 31000
		return made, nil
	case "ide":
		made := new(types.VirtualIDEController)
		made.Key = 200
		return made, nil
	}
	return nil, fmt.Errorf("there is no controller %q", kind)
}

func (n *seedNic) device(key int32) (types.BaseVirtualDevice, error) {
	card := types.VirtualEthernetCard{MacAddress: n.MAC, AddressType: string(types.VirtualEthernetCardMacTypeManual)}
	card.Key = key
	backing, err := backingOf(n.Network)
	if err != nil {
		return nil, err
	}
	card.Backing = backing
	switch n.Model {
	case "vmxnet3":
		made := new(types.VirtualVmxnet3)
		made.VirtualEthernetCard = card
		return made, nil
	case "e1000":
		return &types.VirtualE1000{VirtualEthernetCard: card}, nil
	case "e1000e":
		return &types.VirtualE1000e{VirtualEthernetCard: card}, nil
	}
	return nil, fmt.Errorf("there is no network adapter %q", n.Model)
}

func backingOf(network string) (types.BaseVirtualDeviceBackingInfo, error) {
	for _, entity := range simulator.Map.All("DistributedVirtualPortgroup") {
		if group := entity.(*simulator.DistributedVirtualPortgroup); group.Name == network {
			backing := new(types.VirtualEthernetCardDistributedVirtualPortBackingInfo)
			dvs := simulator.Map.Get(*group.Config.DistributedVirtualSwitch).(*simulator.DistributedVirtualSwitch)
			backing.Port = types.DistributedVirtualSwitchPortConnection{PortgroupKey: group.Key, SwitchUuid: dvs.Uuid}
			return backing, nil
		}
	}
	for _, entity := range simulator.Map.All("Network") {
		if entity.Entity().Name == network {
			backing := new(types.VirtualEthernetCardNetworkBackingInfo)
			backing.DeviceName = network
			return backing, nil
		}
	}
	return nil, fmt.Errorf("there is no network %q", network)
}
