package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// world is what is known of VMs and datastores beside the simulator's own objects. Who changes any of them holds its lock.
type world struct {
	sync.Mutex
	// Whose call is being served.
	session string
	// VMs whose guest runs VMware Tools while it is on.
	tools map[types.ManagedObjectReference]bool
	// Addresses that such a guest has, by the MAC address of the interface.
	addresses map[types.ManagedObjectReference]map[string][]string
	// What datastores hold at most, in bytes, by name.
	capacity map[string]int64
	// The configurations of VMs that show none.
	hidden map[types.ManagedObjectReference]*types.VirtualMachineConfigInfo
}

// roomy is the size of a datastore of which nothing else was said: 1 TiB.
const roomy = 1 << 40

func (w *world) init() {
	w.tools = map[types.ManagedObjectReference]bool{}
	w.addresses = map[types.ManagedObjectReference]map[string][]string{}
	w.capacity = map[string]int64{}
	w.hidden = map[types.ManagedObjectReference]*types.VirtualMachineConfigInfo{}
}

func datastores() map[string]*simulator.Datastore {
	all := map[string]*simulator.Datastore{}
	for _, found := range simulator.Map.All("Datastore") {
		datastore := found.(*simulator.Datastore)
		all[datastore.Name] = datastore
	}
	return all
}

func folderOf(datastore *simulator.Datastore) string { return datastore.Info.GetDatastoreInfo().Url }

// local is the file that "[datastore] path" names, or nothing.
func local(name string) string {
	var p object.DatastorePath
	if !p.FromString(name) {
		return ""
	}
	if datastore := datastores()[p.Datastore]; datastore != nil {
		return path.Join(folderOf(datastore), path.Clean("/"+p.Path))
	}
	return ""
}

// content is the file with what a disk holds.
func content(name string) string { return strings.TrimSuffix(local(name), ".vmdk") + "-flat.vmdk" }

// used is how many bytes the files of a datastore take.
func used(datastore *simulator.Datastore) (bytes int64) {
	_ = filepath.Walk(folderOf(datastore), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += stat.Blocks * 512
			}
		}
		return nil
	})
	return bytes
}

// free is how many bytes may still be written to a datastore.
func (w *world) free(datastore *simulator.Datastore) int64 {
	capacity, said := w.capacity[datastore.Name]
	if !said {
		capacity = roomy
	}
	if left := capacity - used(datastore); left > 0 {
		return left
	}
	return 0
}

// account has every datastore, and datastore cluster, say how much is free.
func (w *world) account() {
	for name, datastore := range datastores() {
		free := w.free(datastore)
		capacity, said := w.capacity[name]
		if !said {
			capacity = roomy
		}
		datastore.Summary.Capacity, datastore.Summary.FreeSpace = capacity, free
		datastore.Info.GetDatastoreInfo().FreeSpace = free
	}
	for _, found := range simulator.Map.All("StoragePod") {
		pod := found.(*simulator.StoragePod)
		pod.Summary = &types.StoragePodSummary{Name: pod.Name}
		for _, member := range pod.ChildEntity {
			summary := simulator.Map.Get(member).(*simulator.Datastore).Summary
			pod.Summary.Capacity += summary.Capacity
			pod.Summary.FreeSpace += summary.FreeSpace
		}
	}
}

// disks are those of a VM, or of a snapshot, in the order of its devices.
func disks(config *types.VirtualMachineConfigInfo) (found []*types.VirtualDisk) {
	for _, device := range config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok {
			found = append(found, disk)
		}
	}
	return found
}

// fileOf is "[datastore] path" of a disk, or nothing.
func fileOf(disk *types.VirtualDisk) string {
	if backing, ok := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
		return backing.GetVirtualDeviceFileBackingInfo().FileName
	}
	return ""
}

func bytesOf(disk *types.VirtualDisk) int64 {
	if disk.CapacityInBytes > 0 {
		return disk.CapacityInBytes
	}
	return disk.CapacityInKB * 1024
}

func setBytes(disk *types.VirtualDisk, bytes int64) {
	disk.CapacityInBytes, disk.CapacityInKB = bytes, bytes/1024
}

// settle gives a VM's disks the files that they should have, and its options one value each. It never makes a file smaller.
func (s *server) settle(vm *simulator.VirtualMachine) error {
	for _, disk := range disks(vm.Config) {
		setBytes(disk, bytesOf(disk))
		file := content(fileOf(disk))
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if info.Size() < disk.CapacityInBytes {
			if err := os.Truncate(file, disk.CapacityInBytes); err != nil {
				return err
			}
		}
		if err := describe(fileOf(disk), disk.CapacityInBytes); err != nil {
			return err
		}
	}
	vm.Config.ExtraConfig = latest(vm.Config.ExtraConfig)
	s.world.account()
	return nil
}

// describe writes the descriptor of a disk.
func describe(name string, bytes int64) error {
	const text = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n" +
		"RW %d VMFS \"%s\"\n\nddb.adapterType = \"lsilogic\"\nddb.thinProvisioned = \"1\"\n"
	return os.WriteFile(local(name), []byte(fmt.Sprintf(text, bytes/512, path.Base(content(name)))), 0600)
}

// latest keeps the last value of each key, and none that is empty, as a server does.
func latest(options []types.BaseOptionValue) (kept []types.BaseOptionValue) {
	last := map[string]int{}
	for i, option := range options {
		last[option.GetOptionValue().Key] = i
	}
	for i, option := range options {
		value := option.GetOptionValue()
		if last[value.Key] == i && value.Value != "" && value.Value != nil {
			kept = append(kept, option)
		}
	}
	return kept
}

// heldBy is the VM that has a disk of that file, if any.
func heldBy(file string) *simulator.VirtualMachine {
	for _, found := range simulator.Map.All("VirtualMachine") {
		vm := found.(*simulator.VirtualMachine)
		if vm.Config == nil {
			continue
		}
		for _, disk := range disks(vm.Config) {
			if local(fileOf(disk)) == local(file) {
				return vm
			}
		}
	}
	return nil
}
