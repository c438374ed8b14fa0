package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/ioutil"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// transferFaults say how the next transfers go wrong.
type transferFaults struct {
	sync.Mutex
	cuts      []int64
	elsewhere string
	corrupt   int
	omitted   int
	refused   int
	back      time.Time
}

var errCut = errors.New("cut")

// cut takes the next number of bytes to cut a transfer at; none is a negative number.
func (f *transferFaults) cut() int64 {
	f.Lock()
	defer f.Unlock()
	if len(f.cuts) == 0 {
		return -1
	}
	at := f.cuts[0]
	f.cuts = f.cuts[1:]
	return at
}

func (f *transferFaults) host() string {
	f.Lock()
	defer f.Unlock()
	return f.elsewhere
}

// isAway says whether the server is being restarted.
func (f *transferFaults) isAway() bool {
	f.Lock()
	defer f.Unlock()
	return time.Now().Before(f.back)
}

// spoil says whether the checksum of this transfer is to be wrong.
func (f *transferFaults) spoil() bool {
	f.Lock()
	defer f.Unlock()
	if f.corrupt == 0 {
		return false
	}
	f.corrupt--
	return true
}

// omit says whether this transfer is to be missing in the manifest.
func (f *transferFaults) omit() bool {
	f.Lock()
	defer f.Unlock()
	if f.omitted == 0 {
		return false
	}
	f.omitted--
	return true
}

// refusal takes the status that the next transfer is answered with; 0 is none.
func (f *transferFaults) refusal() (status int) {
	f.Lock()
	defer f.Unlock()
	status, f.refused = f.refused, 0
	return status
}

// limited cuts after so many bytes.
type limited struct {
	io.Reader
	left int64
}

func (l *limited) Read(into []byte) (int, error) {
	if l.left < 0 {
		return l.Reader.Read(into)
	}
	if l.left == 0 {
		return 0, errCut
	}
	if int64(len(into)) > l.left {
		into = into[:l.left]
	}
	n, err := l.Reader.Read(into)
	l.left -= int64(n)
	return n, err
}

func (s *server) serveTransfer(w http.ResponseWriter, r *http.Request) {
	if status := s.faults.refusal(); status != 0 {
		w.WriteHeader(status)
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/nfc/"), "/")
	lease := s.leases.get(parts[0])
	if lease == nil || len(parts) != 2 {
		http.NotFound(w, r)
		return
	}
	s.world.Lock()
	disk := lease.disks[parts[1]]
	usable := disk != nil && !lease.over && lease.State == types.HttpNfcLeaseStateReady && !disk.moving
	if usable {
		disk.moving = true
	}
	s.world.Unlock()
	if !usable {
		http.NotFound(w, r)
		return
	}
	moved, err := s.transfer(lease, disk, w, r)
	s.world.Lock()
	defer s.world.Unlock()
	disk.moving = false
	if err == nil && s.faults.spoil() {
		moved.sha1, moved.sha256 = strings.Repeat("0", 40), strings.Repeat("0", 64)
	}
	if err == nil && !s.faults.omit() {
		disk.sums = moved
	}
}

func (s *server) transfer(l *lease, disk *leased, w http.ResponseWriter, r *http.Request) (*sums, error) {
	switch {
	case r.Method == http.MethodGet && !l.imports:
		return s.send(disk, w)
	case (r.Method == http.MethodPost || r.Method == http.MethodPut) && l.imports:
		return s.receive(l, disk, w, r)
	}
	w.WriteHeader(http.StatusMethodNotAllowed)
	return nil, errors.New(r.Method)
}

// send encodes a disk into the answer, which says nothing of its length.
func (s *server) send(disk *leased, w http.ResponseWriter) (*sums, error) {
	file, err := os.Open(disk.file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, err
	}
	defer file.Close()
	w.Header().Set("Content-Type", streamType)
	short, one, other := hashes()
	out := &cutWriter{io.MultiWriter(w, one, other), s.faults.cut(), 0}
	if err := encode(out, file, disk.bytes); err != nil {
		hangUp(w)
		return nil, err
	}
	return short(out.sent), nil
}

const streamType = "application/x-vnd.vmware-streamVmdk"

// receive takes a disk, and decodes it into the VM's own.
func (s *server) receive(l *lease, disk *leased, w http.ResponseWriter, r *http.Request) (*sums, error) {
	if r.ContentLength < 0 {
		http.Error(w, "a length is required", http.StatusLengthRequired)
		return nil, errors.New("no length")
	}
	if s.frugal {
		sum, err := s.keepStream(r)
		if err != nil {
			hangUp(w)
		}
		return sum, err
	}
	staged, err := ioutil.TempFile(s.work, "upload-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(staged.Name())
	defer staged.Close()
	sum, one, other := hashes()
	from := &limited{r.Body, s.faults.cut()}
	size, err := io.Copy(io.MultiWriter(staged, one, other), &watched{from, l})
	if err != nil {
		hangUp(w)
		return nil, err
	}
	refused := s.takeIn(staged, size, disk, r.Header.Get("Content-Type"))
	if refused != nil {
		l.failLater(s, refused)
		_, text := lift(refused)
		http.Error(w, text, http.StatusInternalServerError)
		return nil, errors.New(text)
	}
	w.WriteHeader(http.StatusOK)
	return sum(size), nil
}

// watched ends when its lease does.
type watched struct {
	io.Reader
	lease *lease
}

func (w *watched) Read(into []byte) (int, error) {
	if w.lease.over {
		return 0, errCut
	}
	return w.Reader.Read(into)
}

func (s *server) takeIn(staged *os.File, size int64, disk *leased, kind string) soap.HasFault {
	if kind != streamType {
		return refuse(new(types.InvalidFormat), "The content type %q is not that of a disk.", kind)
	}
	if err := checkStream(staged, size, disk.bytes); err != nil {
		return refuse(new(types.InvalidFormat), "Not a stream-optimized disk that fits: %s", err)
	}
	raw := staged.Name() + ".raw"
	defer os.Remove(raw)
	decode := exec.Command("qemu-img", "convert", "-f", "vmdk", "-O", "raw", staged.Name(), raw)
	if said, err := decode.CombinedOutput(); err != nil {
		return refuse(new(types.InvalidFormat), "Not a disk: %s", said)
	}
	s.world.Lock()
	defer s.world.Unlock()
	// The lease may have ended, and the VM with it.
	if _, err := os.Stat(disk.file); err != nil {
		return refuse(new(types.InvalidState), "The disk is gone.")
	}
	if datastore := holding(disk.file); datastore != nil && s.world.free(datastore) < allocated(raw) {
		return refuse(&types.NoDiskSpace{
			FileFault: types.FileFault{File: disk.file}, Datastore: datastore.Name,
		}, "Insufficient disk space on datastore '%s'.", datastore.Name)
	}
	if err := os.Rename(raw, disk.file); err != nil {
		return refuse(new(types.FileFault), "%s", err)
	}
	s.world.account()
	return nil
}

// holding is the datastore that a file is on.
func holding(file string) *simulator.Datastore {
	for _, datastore := range datastores() {
		if strings.HasPrefix(file, folderOf(datastore)+"/") {
			return datastore
		}
	}
	return nil
}

// hashes gives what both sums are made with, and then the sums.
func hashes() (func(int64) *sums, io.Writer, io.Writer) {
	one, other := sha1.New(), sha256.New()
	return func(size int64) *sums {
		return &sums{hex.EncodeToString(one.Sum(nil)), hex.EncodeToString(other.Sum(nil)), size}
	}, one, other
}

// cutWriter cuts after so many bytes, and counts.
type cutWriter struct {
	io.Writer
	cut  int64
	sent int64
}

func (c *cutWriter) Write(bytes []byte) (int, error) {
	if c.cut >= 0 && c.sent+int64(len(bytes)) > c.cut {
		n, _ := c.Writer.Write(bytes[:c.cut-c.sent])
		c.sent += int64(n)
		return n, fmt.Errorf("%w after %d bytes", errCut, c.sent)
	}
	n, err := c.Writer.Write(bytes)
	c.sent += int64(n)
	return n, err
}
