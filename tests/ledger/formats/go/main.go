// tlogcheck judges notes and Merkle proofs with golang.org/x/mod, for the tests to compare.
//
// It reads one JSON document on standard input and writes one list of verdicts on standard
// output: true where the Go module accepts the case. It shares no code with Consilium.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type noteCase struct {
	Vkeys      []string
	Note       []byte
	Signatures int // how many known keys must have signed
}

type inclusionCase struct {
	Index, Size int64
	Leaf, Root  []byte
	Proof       [][]byte
}

type consistencyCase struct {
	OldSize, NewSize int64
	OldRoot, NewRoot []byte
	Proof            [][]byte
}

type document struct {
	Notes       []noteCase
	Inclusion   []inclusionCase
	Consistency []consistencyCase
}

type verdicts struct {
	Notes       []bool `json:"notes"`
	Inclusion   []bool `json:"inclusion"`
	Consistency []bool `json:"consistency"`
}

// cosigner verifies cosignature/v1 lines (type 0x04), which x/mod does not know.
type cosigner struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(sig)
	signed := append([]byte(fmt.Sprintf("cosignature/v1\ntime %d\n", time)), msg...)
	return ed25519.Verify(c.public, signed, sig[8:])
}

func verifier(vkey string) (note.Verifier, error) {
	if v, err := note.NewVerifier(vkey); err == nil {
		return v, nil
	}
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("not a vkey")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, errors.New("not a cosignature key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	return cosigner{parts[0], binary.BigEndian.Uint32(sum[:]), key[1:]}, nil
}

func checkNote(c noteCase) bool {
	var known []note.Verifier
	for _, vkey := range c.Vkeys {
		v, err := verifier(vkey)
		if err != nil {
			return false
		}
		known = append(known, v)
	}
	opened, err := note.Open(c.Note, note.VerifierList(known...))
	return err == nil && len(opened.Sigs) == c.Signatures
}

func toHash(b []byte) (h tlog.Hash, ok bool) {
	if len(b) != tlog.HashSize {
		return h, false
	}
	copy(h[:], b)
	return h, true
}

func toHashes(bs [][]byte) ([]tlog.Hash, bool) {
	hs := make([]tlog.Hash, 0, len(bs))
	for _, b := range bs {
		h, ok := toHash(b)
		if !ok {
			return nil, false
		}
		hs = append(hs, h)
	}
	return hs, true
}

func checkInclusion(c inclusionCase) bool {
	root, okRoot := toHash(c.Root)
	leaf, okLeaf := toHash(c.Leaf)
	proof, okProof := toHashes(c.Proof)
	return okRoot && okLeaf && okProof &&
		tlog.CheckRecord(proof, c.Size, root, c.Index, leaf) == nil
}

func checkConsistency(c consistencyCase) bool {
	oldRoot, okOld := toHash(c.OldRoot)
	newRoot, okNew := toHash(c.NewRoot)
	proof, okProof := toHashes(c.Proof)
	return okOld && okNew && okProof &&
		tlog.CheckTree(proof, c.NewSize, newRoot, c.OldSize, oldRoot) == nil
}

func main() {
	var in bytes.Buffer
	if _, err := in.ReadFrom(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var doc document
	if err := json.Unmarshal(in.Bytes(), &doc); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out := verdicts{Notes: []bool{}, Inclusion: []bool{}, Consistency: []bool{}}
	for _, c := range doc.Notes {
		out.Notes = append(out.Notes, checkNote(c))
	}
	for _, c := range doc.Inclusion {
		out.Inclusion = append(out.Inclusion, checkInclusion(c))
	}
	for _, c := range doc.Consistency {
		out.Consistency = append(out.Consistency, checkConsistency(c))
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
