package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"time"
)

// Whom every database server lets in over TCP, with TLS and without, to do
// anything, and what that user finds there: a database with nothing in it.
const (
	User     = "natwise"
	Password = "secret"
	Database = "natwise"
)

// CertFile is the path of a database server's certificate, in PEM, which is good
// for the address of the server and signed by nobody else.
func (s *Server) CertFile() string { return filepath.Join(s.dir, "cert.pem") }

func (s *Server) keyFile() string { return filepath.Join(s.dir, "key.pem") }

// certify writes a certificate and its key.
func (s *Server) certify() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	now := time.Now()
	cert := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "natwise test server"},
		IPAddresses:           []net.IP{s.at.addr.Addr().AsSlice()},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	s.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}
