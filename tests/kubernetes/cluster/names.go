package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

// names is the cluster's DNS: A, AAAA and CNAME of Services, and of the pods of headless ones. No SRV, no PTR, nothing outside the cluster.
type names struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

const zone = ".svc.cluster.local."

// serveNames answers at port 53 of where it runs, and returns only if it can't.
func (c *Cluster) serveNames() error {
	api, err := c.kubernetes()
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(api, 0)
	server := &names{factory.Core().V1().Services().Lister(), factory.Discovery().V1().EndpointSlices().Lister()}
	factory.Start(context.Background().Done())
	factory.WaitForCacheSync(context.Background().Done())
	datagrams, err := net.ListenPacket("udp", ":53")
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", ":53")
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() { failed <- server.datagrams(datagrams) }()
	go func() { failed <- server.streams(streams) }()
	return <-failed
}

func (s *names) datagrams(socket net.PacketConn) error {
	buffer := make([]byte, 1<<16)
	for {
		length, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if answer := s.answer(buffer[:length]); answer != nil {
			// A client that has gone is no matter of ours.
			_, _ = socket.WriteTo(answer, from)
		}
	}
}

func (s *names) streams(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			for {
				_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
				var length uint16
				if binary.Read(connection, binary.BigEndian, &length) != nil {
					return
				}
				question := make([]byte, length)
				if _, err := io.ReadFull(connection, question); err != nil {
					return
				}
				answer := s.answer(question)
				if answer == nil {
					return
				}
				if _, err := connection.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		}()
	}
}

// answer gives the message that answers this one; none if it isn't a question.
func (s *names) answer(message []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	header.Response, header.Authoritative, header.RecursionAvailable, header.AuthenticData = true, true, true, false
	name, known := question.Name, false
	records := []dnsmessage.Resource{}
	// An alias may lead to another Service's name.
	for range 8 {
		record := func(body dnsmessage.ResourceBody) {
			// A second, so that pods see changes at once.
			head := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1}
			records = append(records, dnsmessage.Resource{Header: head, Body: body})
		}
		addresses, alias, found := s.find(name.String())
		known = known || found
		if alias != "" {
			target, err := dnsmessage.NewName(alias)
			if err != nil {
				break
			}
			record(&dnsmessage.CNAMEResource{CNAME: target})
			if question.Type == dnsmessage.TypeCNAME {
				break
			}
			name = target
			continue
		}
		for _, address := range addresses {
			switch {
			case address.Is4() && question.Type == dnsmessage.TypeA:
				record(&dnsmessage.AResource{A: address.As4()})
			case address.Is6() && question.Type == dnsmessage.TypeAAAA:
				record(&dnsmessage.AAAAResource{AAAA: address.As16()})
			}
		}
		break
	}
	if !known {
		header.RCode = dnsmessage.RCodeNameError
	}
	packed, err := (&dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{question}, Answers: records}).Pack()
	if err != nil {
		return nil
	}
	return packed
}

// find looks a name up: SERVICE.NAMESPACE, or HOST.SERVICE.NAMESPACE of a headless one, below the zone.
func (s *names) find(name string) (addresses []netip.Addr, alias string, found bool) {
	rest, below := strings.CutSuffix(strings.ToLower(name), zone)
	if !below {
		return nil, "", false
	}
	parts := strings.Split(rest, ".")
	host := ""
	if len(parts) == 3 {
		host, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return nil, "", false
	}
	service, err := s.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil, "", false
	}
	switch {
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return nil, strings.TrimSuffix(service.Spec.ExternalName, ".") + ".", true
	case service.Spec.ClusterIP == corev1.ClusterIPNone:
		addresses = s.endpoints(service, host)
		return addresses, "", host == "" || len(addresses) > 0
	case host != "":
		return nil, "", false
	}
	return parse(service.Spec.ClusterIPs), "", true
}

// endpoints gives the addresses of a headless Service's pods, or of the one with this host name.
func (s *names) endpoints(service *corev1.Service, host string) []netip.Addr {
	of := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name})
	slices, err := s.slices.EndpointSlices(service.Namespace).List(of)
	if err != nil {
		return nil
	}
	addresses := []netip.Addr{}
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready || service.Spec.PublishNotReadyAddresses
			named := host == "" || endpoint.Hostname != nil && *endpoint.Hostname == host
			if ready && named {
				addresses = append(addresses, parse(endpoint.Addresses)...)
			}
		}
	}
	return addresses
}

// parse leaves out what is no address.
func parse(texts []string) []netip.Addr {
	addresses := []netip.Addr{}
	for _, text := range texts {
		if address, err := netip.ParseAddr(text); err == nil {
			addresses = append(addresses, address)
		}
	}
	return addresses
}
