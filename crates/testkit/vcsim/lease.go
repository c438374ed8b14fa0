package main

import (
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// lease is the right to move a VM's disks. While it lives nothing else may be done to the VM; where it does not end well, what an
// import made is removed.
type lease struct {
	mo.HttpNfcLease
	session string
	imports bool
	sha256  bool
	over    bool
	touched time.Time
	task    *simulator.Task    // of an import
	disks   map[string]*leased // by target id
}

// leased is a disk of a lease.
type leased struct {
	url    types.HttpNfcLeaseDeviceUrl
	file   string
	bytes  int64
	moving bool
	sums   *sums
}

// sums are of a stream as it was sent.
type sums struct {
	sha1, sha256 string
	size         int64
}

type leases struct {
	sync.Mutex
	known map[string]*lease
}

var (
	endedWithSession = refuse(new(types.RequestCanceled), "The session has ended.")
	aborted          = refuse(new(types.RequestCanceled), "The lease was aborted by the client.")
	timedOut         = refuse(new(types.Timedout), "Lease timed out.")
)

func (l *leases) init() { l.known = map[string]*lease{} }

func (l *leases) get(id string) *lease {
	l.Lock()
	defer l.Unlock()
	return l.known[id]
}

// all are those that live.
func (l *leases) all() (live []*lease) {
	l.Lock()
	defer l.Unlock()
	for _, lease := range l.known {
		if !lease.over {
			live = append(live, lease)
		}
	}
	return live
}

// holding is the lease that lives and holds a VM.
func (l *leases) holding(vm types.ManagedObjectReference) *lease {
	for _, lease := range l.all() {
		if lease.Info != nil && lease.Info.Entity == vm {
			return lease
		}
	}
	return nil
}

// grant makes a lease for a VM. It becomes ready a little later. Whoever calls holds the world.
func (s *server) grant(vm types.ManagedObjectReference, imports bool, found map[string]*leased) *lease {
	key := uuid.New().String()
	made := &lease{session: s.world.session, imports: imports, touched: time.Now(), disks: found}
	made.Self = types.ManagedObjectReference{Type: "HttpNfcLease", Value: "session[" + made.session + "]" + key}
	made.State = types.HttpNfcLeaseStateInitializing
	made.Info = &types.HttpNfcLeaseInfo{Lease: made.Self, Entity: vm, LeaseTimeout: int32(s.leaseTimeout / time.Second)}
	for _, id := range order(found) {
		disk := found[id]
		disk.url.Url, disk.url.SslThumbprint = s.diskURL(key, id), s.thumbprint
		made.Info.TotalDiskCapacityInKB += disk.bytes / 1024
		made.Info.DeviceUrl = append(made.Info.DeviceUrl, disk.url)
	}
	simulator.Map.Put(made)
	s.leases.Lock()
	s.leases.known[key] = made
	s.leases.Unlock()
	go s.watch(made)
	return made
}

// watch makes a lease ready, and ends it when nobody gives a sign of life.
func (s *server) watch(l *lease) {
	time.Sleep(s.leaseDelay)
	s.world.Lock()
	if !l.over {
		l.touched = time.Now()
		s.update(l, types.PropertyChange{Name: "state", Val: types.HttpNfcLeaseStateReady})
	}
	s.world.Unlock()
	for over := false; !over; time.Sleep(50 * time.Millisecond) {
		s.world.Lock()
		if !l.over && time.Since(l.touched) > s.leaseTimeout {
			l.fail(s, timedOut)
		}
		over = l.over
		s.world.Unlock()
	}
}

func (s *server) update(l *lease, changes ...types.PropertyChange) {
	simulator.Map.WithLock(l, func() { simulator.Map.Update(l, changes) })
}

// fail ends a lease, and removes the VM that was being imported. Whoever calls holds the world.
func (l *lease) fail(s *server, why soap.HasFault) {
	if l.over {
		return
	}
	l.over = true
	fault, text := lift(why)
	s.update(l,
		types.PropertyChange{Name: "error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: text}},
		types.PropertyChange{Name: "state", Val: types.HttpNfcLeaseStateError})
	if l.imports {
		s.remove(l.Info.Entity)
		s.world.account()
	}
	l.settle(types.TaskInfoStateError)
}

// failLater is for whoever holds the world already, or must not wait for it.
func (l *lease) failLater(s *server, why soap.HasFault) {
	go func() {
		s.world.Lock()
		defer s.world.Unlock()
		l.fail(s, why)
	}()
}

// live is the lease that a call is for, where it lives and belongs to the caller.
func (s *server) live(call *simulator.Method) (*lease, soap.HasFault) {
	found, ok := simulator.Map.Get(call.This).(*lease)
	if !ok || found.session != s.world.session {
		return nil, refuse(&types.ManagedObjectNotFound{Obj: call.This}, "The object '%s' has already been deleted or has not been completely created", call.This.Value)
	}
	if found.over {
		return nil, refuse(new(types.InvalidState), "The operation is not allowed in the current state.")
	}
	return found, nil
}

func (s *server) leaseProgress(call *simulator.Method) soap.HasFault {
	lease, refused := s.live(call)
	if refused != nil {
		return refused
	}
	lease.touched = time.Now()
	percent := call.Body.(*types.HttpNfcLeaseProgress).Percent
	s.update(lease, types.PropertyChange{Name: "transferProgress", Val: percent})
	return &methods.HttpNfcLeaseProgressBody{Res: new(types.HttpNfcLeaseProgressResponse)}
}

func (s *server) leaseComplete(call *simulator.Method) soap.HasFault {
	lease, refused := s.live(call)
	if refused != nil {
		return refused
	}
	for _, disk := range lease.disks {
		if lease.State != types.HttpNfcLeaseStateReady || disk.moving {
			return refuse(new(types.InvalidState), "The operation is not allowed in the current state.")
		}
	}
	lease.over = true
	s.update(lease, types.PropertyChange{Name: "state", Val: types.HttpNfcLeaseStateDone})
	lease.settle(types.TaskInfoStateSuccess)
	return &methods.HttpNfcLeaseCompleteBody{Res: new(types.HttpNfcLeaseCompleteResponse)}
}

func (s *server) leaseAbort(call *simulator.Method) soap.HasFault {
	lease, refused := s.live(call)
	if refused != nil {
		return refused
	}
	lease.fail(s, aborted)
	return &methods.HttpNfcLeaseAbortBody{Res: new(types.HttpNfcLeaseAbortResponse)}
}

func (s *server) leaseChecksumType(call *simulator.Method) soap.HasFault {
	lease, refused := s.live(call)
	if refused != nil {
		return refused
	}
	for _, all := range call.Body.(*types.HttpNfcLeaseSetManifestChecksumType).DeviceUrlsToChecksumTypes {
		lease.sha256 = all.Value == "sha256"
	}
	return &methods.HttpNfcLeaseSetManifestChecksumTypeBody{Res: new(types.HttpNfcLeaseSetManifestChecksumTypeResponse)}
}

// leaseManifest says what was moved: what it says of a disk may have been disturbed.
func (s *server) leaseManifest(call *simulator.Method) soap.HasFault {
	lease, refused := s.live(call)
	if refused != nil {
		return refused
	}
	answer := new(types.HttpNfcLeaseGetManifestResponse)
	for _, id := range order(lease.disks) {
		disk := lease.disks[id]
		if disk.sums == nil {
			continue
		}
		entry := types.HttpNfcLeaseManifestEntry{
			Key: disk.url.Key, Sha1: disk.sums.sha1, Size: disk.sums.size, Disk: true, Capacity: disk.bytes,
		}
		if lease.sha256 {
			entry.Checksum, entry.ChecksumType = disk.sums.sha256, "sha256"
		}
		answer.Returnval = append(answer.Returnval, entry)
	}
	return &methods.HttpNfcLeaseGetManifestBody{Res: answer}
}
