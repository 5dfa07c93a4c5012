package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// credentials makes what the control plane proves itself with, the token that may do everything, and a kubeconfig with it.
func (c *Cluster) credentials() error {
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	c.Token = hex.EncodeToString(secret)
	if err := os.MkdirAll(c.of("control", "pki"), 0o700); err != nil {
		return err
	}
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "flowpin test cluster"}, IsCA: true, BasicConstraintsValid: true,
		// An agent whose clock is an hour off must not be shut out by this.
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour * 3650), KeyUsage: x509.KeyUsageCertSign,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authorityText, err := c.certificate("ca", authority, authority, authorityKey, authorityKey)
	if err != nil {
		return err
	}
	first := func(p pair) []net.IP {
		v4, v6 := p.host(1)
		return []net.IP{v4.Addr().AsSlice(), v6.Addr().AsSlice()}
	}
	v4, v6 := underlay.host(controlHost)
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: append(first(services), net.IPv4(127, 0, 0, 1), v4.Addr().AsSlice(), v6.Addr().AsSlice()),
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if _, err := c.certificate("server", server, authority, serverKey, authorityKey); err != nil {
		return err
	}
	accounts, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	if err := writePEM(c.of("control", "pki", "accounts.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(accounts)); err != nil {
		return err
	}
	tokens := fmt.Sprintf("%s,admin,admin,system:masters\n", c.Token)
	if err := os.WriteFile(c.of("control", "pki", "tokens.csv"), []byte(tokens), 0o600); err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters["test"] = &api.Cluster{Server: c.server(), CertificateAuthorityData: authorityText}
	config.AuthInfos["admin"] = &api.AuthInfo{Token: c.Token}
	config.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: "admin"}
	config.CurrentContext = "test"
	return clientcmd.WriteToFile(*config, c.kubeconfig())
}

// certificate writes NAME.crt and NAME.key, and gives the first.
func (c *Cluster) certificate(name string, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) ([]byte, error) {
	signed, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writePEM(c.of("control", "pki", name+".key"), "EC PRIVATE KEY", secret); err != nil {
		return nil, err
	}
	if err := writePEM(c.of("control", "pki", name+".crt"), "CERTIFICATE", signed); err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), nil
}

func writePEM(path, kind string, data []byte) error {
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: data}); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o600)
}
