package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// control is what tests see and do behind the API's back:
//
//	GET  /state          VMs, snapshots, leases, files, sessions
//	GET  /calls          what was called, in order
//	POST /vms            makes a VM (seed.go); gives its reference
//	POST /rules          {"method","fault","message","fields","task","late","skip","times"}: how next calls go wrong
//	POST /clear          forgets rules and the rest of what was to go wrong
//	POST /cut            {"after"}: cuts the next transfer after so many bytes
//	POST /spoil          {"times"}: gives wrong checksums of the next transfers
//	POST /lease-host     {"host"}: names this host in URLs of leases from now on
//	POST /lease-timeout  {"ms"}: how long leases live without a sign of life
//	POST /capacity       {"datastore","bytes"}: how large a datastore is
//	POST /datastore      {"datastore","accessible","maintenance"}
//	POST /host           {"connection"}: connected, disconnected, notResponding: of all hosts
//	POST /kill-sessions  ends all sessions
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
	"/host":          setHosts,
	"/kill-sessions": func(s *server, _ *json.Decoder) (interface{}, error) {
		keys := s.sessions.all()
		for _, key := range keys {
			s.end(key)
		}
		return len(keys), nil
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
