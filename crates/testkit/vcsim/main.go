// vcsim is a vCenter or an ESXi host for tests: govmomi's simulator with what moves the bytes of disks, which that lacks.
//
// Disks are files in the datastores' folders, as on VMFS: X.vmdk describes one, X-flat.vmdk is its content. What is imported is
// decoded into that, what is exported is encoded from it, so a test sees the bytes that a guest would see.
//
// It prints one line, "ready HOST:PORT CONTROL", when it serves: the API, and the port of the tests' own control (control.go).
package main

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

type options struct {
	esx, star, frugal                                     bool
	user, password, cert, key, work, version              string
	clusters, clusterHosts, hosts, datastores, pods, nets int
	leaseTimeout, leaseDelay, taskDelay                   time.Duration
}

func main() {
	var o options
	flag.BoolVar(&o.esx, "esx", false, "be a standalone ESXi host")
	flag.BoolVar(&o.star, "star", false, "give URLs of leases with the host *")
	flag.BoolVar(&o.frugal, "frugal", false, "keep what comes in as it comes, for measurements")
	flag.StringVar(&o.user, "user", "root", "who may log in")
	flag.StringVar(&o.password, "password", "", "their password")
	flag.StringVar(&o.cert, "cert", "", "certificate, PEM")
	flag.StringVar(&o.key, "key", "", "its key, PEM")
	flag.StringVar(&o.work, "work", ".", "folder for what a transfer needs meanwhile")
	flag.StringVar(&o.version, "api-version", "", "the API version to claim")
	flag.IntVar(&o.clusters, "clusters", 1, "clusters")
	flag.IntVar(&o.clusterHosts, "cluster-hosts", 1, "hosts in each cluster")
	flag.IntVar(&o.hosts, "hosts", 0, "standalone hosts")
	flag.IntVar(&o.datastores, "datastores", 1, "datastores")
	flag.IntVar(&o.pods, "pods", 0, "datastore clusters; all datastores are in the first")
	flag.IntVar(&o.nets, "portgroups", 1, "distributed portgroups")
	flag.DurationVar(&o.leaseTimeout, "lease-timeout", 300*time.Second, "how long a lease lives without a sign of life")
	flag.DurationVar(&o.leaseDelay, "lease-delay", 20*time.Millisecond, "how long a lease is being initialized")
	flag.Parse()
	if err := serve(&o); err != nil {
		log.Fatal(err)
	}
}

// server is the simulator and what is added to it.
type server struct {
	*options
	service *simulator.Service
	client  *vim25.Client // in this process; may do everything
	inner   http.Handler
	base    *url.URL
	// SHA-1 of the certificate, as leases say it.
	thumbprint string
	calls      calls
	rules      rules
	sessions   sessions
	leases     leases
	world      world
	faults     transferFaults
	held       []held
}

func serve(o *options) error {
	model, err := inventory(o)
	if err != nil {
		return err
	}
	certificate, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return err
	}
	s := &server{options: o, service: model.Service, thumbprint: thumbprint(certificate.Certificate[0])}
	s.leases.init()
	s.sessions.init()
	s.world.init()
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(o.user, o.password)}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	front := model.Service.NewServer()
	s.base = front.URL
	s.inner = front.Config.Handler
	front.Config.Handler = s
	if s.client, err = vim25.NewClient(context.Background(), model.Service); err != nil {
		return err
	}
	if err := s.arrange(); err != nil {
		return err
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("ready", front.URL.Host, control.Addr().(*net.TCPAddr).Port)
	return http.Serve(control, s.control())
}

func thumbprint(certificate []byte) string {
	sum := sha1.Sum(certificate)
	parts := make([]string, len(sum))
	for i, part := range sum {
		parts[i] = fmt.Sprintf("%02X", part)
	}
	return strings.Join(parts, ":")
}

// inventory makes hosts, datastores and networks, and no VM.
func inventory(o *options) (*simulator.Model, error) {
	model := simulator.VPX()
	if o.esx {
		model = simulator.ESX()
	}
	model.Machine = 0
	model.Datastore = o.datastores
	if !o.esx {
		model.Cluster, model.ClusterHost, model.Host = o.clusters, o.clusterHosts, o.hosts
		model.Pod, model.Portgroup = o.pods, o.nets
	}
	if o.version != "" {
		model.ServiceContent.About.ApiVersion = o.version
		model.ServiceContent.About.Version = o.version
	}
	if err := os.MkdirAll(o.work, 0700); err != nil {
		return nil, err
	}
	return model, model.Create()
}

// arrange puts all datastores into the first datastore cluster, where there is one, and says how much is free.
func (s *server) arrange() error {
	if pod, ok := simulator.Map.Any("StoragePod").(*simulator.StoragePod); ok {
		var members []types.ManagedObjectReference
		for _, datastore := range simulator.Map.All("Datastore") {
			members = append(members, datastore.Reference())
		}
		pod.MoveIntoFolderTask(&simulator.Context{Context: context.Background(), Map: simulator.Map},
			&types.MoveIntoFolder_Task{This: pod.Self, List: members})
	}
	s.world.Lock()
	defer s.world.Unlock()
	s.world.account()
	return nil
}
