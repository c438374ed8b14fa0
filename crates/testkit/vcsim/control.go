package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// control is what tests see and do behind the API's back:
//
//	GET  /state          VMs, snapshots, leases, files, sessions
//	GET  /calls          what was called, in order
//	POST /vms            makes a VM (seed.go); gives its reference
//	POST /rules          {"method","fault","message","fields","task","late","skip","times"}: how next calls go wrong
//	POST /go-on          does what the tasks that are held are for, and ends them
//	POST /clear          forgets rules and the rest of what was to go wrong
//	POST /cut            {"after"}: cuts the next transfer after so many bytes
//	POST /spoil          {"times"}: gives wrong checksums of the next transfers
//	POST /omit           {"times"}: leaves the next transfers out of manifests
//	POST /refuse         {"status"}: answers the next transfer with this status
//	POST /lease-host     {"host"}: names this host in URLs of leases from now on
//	POST /lease-timeout  {"ms"}: how long leases live without a sign of life
//	POST /capacity       {"datastore","bytes"}: how large a datastore is
//	POST /datastore      {"datastore","accessible","maintenance"}
//	POST /pull           {"name"}: pulls the plug of a VM
//	POST /hide           {"name","hidden"}: whether a VM has no configuration, as while its host or datastore is away
//	POST /rename         {"from","to"}: of a datastore or a network
//	POST /host           {"connection"}: connected, disconnected, notResponding: of all hosts
//	POST /kill-sessions  ends all sessions
//	POST /restart        {"ms"}: ends all sessions, and answers nobody for so long
func (s *server) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/state", func(w http.ResponseWriter, _ *http.Request) {
		s.world.Lock()
		defer s.world.Unlock()
		give(w, s.state(), nil)
	})
	mux.HandleFunc("/calls", func(w http.ResponseWriter, _ *http.Request) { give(w, s.calls.all(), nil) })
	for path, order := range orders {
		order := order
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			result, err := order(s, json.NewDecoder(r.Body))
			give(w, result, err)
		})
	}
	return mux
}

func give(w http.ResponseWriter, result interface{}, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(result)
}

var orders = map[string]func(*server, *json.Decoder) (interface{}, error){
	"/vms": func(s *server, d *json.Decoder) (interface{}, error) {
		var wanted seed
		if err := d.Decode(&wanted); err != nil {
			return nil, err
		}
		return s.plant(&wanted)
	},
	"/rules": func(s *server, d *json.Decoder) (interface{}, error) {
		added := new(rule)
		if err := d.Decode(added); err != nil {
			return nil, err
		}
		return true, s.rules.add(added)
	},
	"/clear": func(s *server, _ *json.Decoder) (interface{}, error) {
		s.rules.clear()
		s.faults.Lock()
		defer s.faults.Unlock()
		s.faults.cuts, s.faults.elsewhere, s.faults.corrupt = nil, "", 0
		s.faults.omitted, s.faults.refused = 0, 0
		return true, nil
	},
	"/cut": func(s *server, d *json.Decoder) (interface{}, error) {
		var said struct{ After int64 }
		err := d.Decode(&said)
		s.faults.Lock()
		defer s.faults.Unlock()
		s.faults.cuts = append(s.faults.cuts, said.After)
		return true, err
	},
	"/spoil": func(s *server, d *json.Decoder) (interface{}, error) {
		var said struct{ Times int }
		err := d.Decode(&said)
		s.faults.Lock()
		defer s.faults.Unlock()
		s.faults.corrupt = said.Times
		return true, err
	},
	"/omit": func(s *server, d *json.Decoder) (interface{}, error) {
		var said struct{ Times int }
		err := d.Decode(&said)
		s.faults.Lock()
		defer s.faults.Unlock()
		s.faults.omitted = said.Times
		return true, err
	},
	"/refuse": func(s *server, d *json.Decoder) (interface{}, error) {
		var said struct{ Status int }
		err := d.Decode(&said)
		s.faults.Lock()
		defer s.faults.Unlock()
		s.faults.refused = said.Status
		return true, err
	},
	"/lease-host": func(s *server, d *json.Decoder) (interface{}, error) {
		var said struct{ Host string }
		err := d.Decode(&said)
		s.faults.Lock()
		defer s.faults.Unlock()
		s.faults.elsewhere = said.Host
		return true, err
	},
	"/lease-timeout": setTimeout,
	"/capacity":      setCapacity,
	"/datastore":     setDatastore,
	"/pull":          pull,
	"/hide":          hide,
	"/go-on":         func(s *server, _ *json.Decoder) (interface{}, error) { return s.goOn(), nil },
	"/rename":        rename,
	"/host":          setHosts,
	"/kill-sessions": func(s *server, _ *json.Decoder) (interface{}, error) {
		return s.endAll(), nil
	},
	"/restart": func(s *server, d *json.Decoder) (interface{}, error) {
		var said struct{ Ms int64 }
		err := d.Decode(&said)
		s.faults.Lock()
		s.faults.back = time.Now().Add(time.Duration(said.Ms) * time.Millisecond)
		s.faults.Unlock()
		return s.endAll(), err
	},
}

func setCapacity(s *server, d *json.Decoder) (interface{}, error) {
	var said struct {
		Datastore string
		Bytes     int64
	}
	if err := d.Decode(&said); err != nil {
		return nil, err
	}
	s.world.Lock()
	defer s.world.Unlock()
	s.world.capacity[said.Datastore] = said.Bytes
	s.world.account()
	return true, nil
}

func setDatastore(s *server, d *json.Decoder) (interface{}, error) {
	said := struct {
		Datastore   string
		Accessible  bool
		Maintenance bool
	}{Accessible: true}
	if err := d.Decode(&said); err != nil {
		return nil, err
	}
	s.world.Lock()
	defer s.world.Unlock()
	datastore := datastores()[said.Datastore]
	if datastore == nil {
		return nil, errors.New("no such datastore")
	}
	datastore.Summary.Accessible = said.Accessible
	datastore.Summary.MaintenanceMode = string(types.DatastoreSummaryMaintenanceModeStateNormal)
	if said.Maintenance {
		datastore.Summary.MaintenanceMode = string(types.DatastoreSummaryMaintenanceModeStateInMaintenance)
	}
	return true, nil
}

func pull(s *server, d *json.Decoder) (interface{}, error) {
	var said struct{ Name string }
	if err := d.Decode(&said); err != nil {
		return nil, err
	}
	s.world.Lock()
	defer s.world.Unlock()
	vm, err := vmNamed(said.Name)
	if err != nil {
		return nil, err
	}
	return true, s.stop(vm)
}

func vmNamed(name string) (*simulator.VirtualMachine, error) {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		if vm := entity.(*simulator.VirtualMachine); vm.Name == name {
			return vm, nil
		}
	}
	return nil, errors.New("no VM has that name")
}

func hide(s *server, d *json.Decoder) (interface{}, error) {
	var said struct {
		Name   string
		Hidden bool
	}
	if err := d.Decode(&said); err != nil {
		return nil, err
	}
	s.world.Lock()
	defer s.world.Unlock()
	vm, err := vmNamed(said.Name)
	if err != nil {
		return nil, err
	}
	if said.Hidden && vm.Config != nil {
		s.world.hidden[vm.Self], vm.Config = vm.Config, nil
	} else if config := s.world.hidden[vm.Self]; !said.Hidden && config != nil {
		vm.Config = config
	}
	return true, nil
}

func rename(s *server, d *json.Decoder) (interface{}, error) {
	var said struct{ From, To string }
	if err := d.Decode(&said); err != nil {
		return nil, err
	}
	s.world.Lock()
	defer s.world.Unlock()
	for _, kind := range []string{"Datastore", "Network", "DistributedVirtualPortgroup"} {
		for _, entity := range simulator.Map.All(kind) {
			if entity.Entity().Name != said.From {
				continue
			}
			entity.Entity().Name = said.To
			switch found := entity.(type) {
			case *simulator.Datastore:
				found.Summary.Name, found.Info.GetDatastoreInfo().Name = said.To, said.To
			case *simulator.DistributedVirtualPortgroup:
				found.Name, found.Config.Name = said.To, said.To
			case *mo.Network:
				found.Name = said.To
				if found.Summary != nil {
					found.Summary.GetNetworkSummary().Name = said.To
				}
			}
			return true, nil
		}
	}
	return nil, errors.New("nothing has that name")
}

func setHosts(s *server, d *json.Decoder) (interface{}, error) {
	var said struct{ Connection string }
	if err := d.Decode(&said); err != nil {
		return nil, err
	}
	s.world.Lock()
	defer s.world.Unlock()
	for _, host := range simulator.Map.All("HostSystem") {
		simulator.Map.Update(host, []types.PropertyChange{
			{Name: "runtime.connectionState", Val: types.HostSystemConnectionState(said.Connection)},
			{Name: "summary.runtime.connectionState", Val: types.HostSystemConnectionState(said.Connection)},
		})
	}
	return fmt.Sprint(said.Connection), nil
}
