package main

import (
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (s *server) moveDisk(call *simulator.Method) soap.HasFault {
	request := call.Body.(*types.MoveVirtualDisk_Task)
	if request.DestDatacenter == nil {
		request.DestDatacenter = request.SourceDatacenter
	}
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		if refused := s.unused(request.SourceName); refused != nil {
			return nil, refused
		}
		if info, err := os.Stat(path.Dir(local(request.DestName))); err != nil || !info.IsDir() {
			return nil, refuse(&types.FileNotFound{FileFault: types.FileFault{File: request.DestName}}, "File %s was not found", request.DestName)
		}
		if _, err := os.Stat(local(request.DestName)); err == nil {
			return nil, refuse(&types.FileAlreadyExists{FileFault: types.FileFault{File: request.DestName}}, "The file %s already exists", request.DestName)
		}
		var answer methods.MoveVirtualDisk_TaskBody
		if err := s.do(&methods.MoveVirtualDisk_TaskBody{Req: request}, &answer); err != nil {
			return nil, refusedBy(err)
		}
		if _, refused := outcome(answer.Res.Returnval); refused != nil {
			return nil, refused
		}
		// It names the file with the content.
		info, err := os.Stat(content(request.DestName))
		if err == nil {
			err = describe(request.DestName, info.Size())
		}
		if err != nil {
			return nil, refuse(new(types.FileFault), "%s", err)
		}
		return request.DestName, nil
	})
}

func (s *server) deleteDisk(call *simulator.Method) soap.HasFault {
	request := call.Body.(*types.DeleteVirtualDisk_Task)
	return s.around(call, func() (types.AnyType, soap.HasFault) {
		if refused := s.unused(request.Name); refused != nil {
			return nil, refused
		}
		var answer methods.DeleteVirtualDisk_TaskBody
		if err := s.do(&methods.DeleteVirtualDisk_TaskBody{Req: request}, &answer); err != nil {
			return nil, refusedBy(err)
		}
		_, refused := outcome(answer.Res.Returnval)
		return nil, refused
	})
}

// unused refuses the disk of a VM, and one that is not there.
func (s *server) unused(name string) soap.HasFault {
	if _, err := os.Stat(local(name)); err != nil {
		return refuse(&types.FileNotFound{FileFault: types.FileFault{File: name}}, "File %s was not found", name)
	}
	if vm := heldBy(name); vm != nil {
		return refuse(&types.FileLocked{FileFault: types.FileFault{File: name}}, "Unable to access file %s since it is locked", name)
	}
	return nil
}

// refreshDatastore says what we say is free, not what this machine has.
func (s *server) refreshDatastore(*simulator.Method) soap.HasFault {
	s.world.account()
	return &methods.RefreshDatastoreBody{Res: new(types.RefreshDatastoreResponse)}
}

// serveFolder gives the files of datastores to those who are logged in, or log in with the request.
func (s *server) serveFolder(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	known := user == s.user && password == s.password
	if s.sessions.of(r) == "" && !known {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	s.inner.ServeHTTP(w, r)
}

// files are those of all datastores, as "[datastore] path".
func files() []string {
	found := []string{}
	for name, datastore := range datastores() {
		root := folderOf(datastore)
		_ = filepath.Walk(root, func(file string, info os.FileInfo, err error) error {
			if err == nil && file != root {
				listed := "[" + name + "] " + strings.TrimPrefix(file, root+"/")
				if info.IsDir() {
					listed += "/"
				}
				found = append(found, listed)
			}
			return nil
		})
	}
	sort.Strings(found)
	return found
}
