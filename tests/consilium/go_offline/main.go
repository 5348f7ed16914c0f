// offlinecheck judges what Consilium's commands write, with golang.org/x/mod alone:
//
//	offlinecheck proof PROOF LEAF POLICY      three files (tlog-proof, leaf, tlog-policy)
//	offlinecheck tiles FOLDER-OR-URL POLICY   a log as tlog-tiles: checkpoint, every tile, every entry
//	offlinecheck hashes FOLDER-OR-URL POLICY  the same without entries, which a coordinator keeps for members
//
// It prints one line on success and exits with 1 and the reason otherwise. It shares no code with
// Consilium; what x/mod does not know (cosignatures, policies, the two frames) is written here from
// the specifications of C2SP.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

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
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.public, []byte(signed), sig[8:])
}

func newCosigner(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("not a vkey")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, errors.New("not a cosignature key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if fmt.Sprintf("%x", sum[:4]) != parts[1] {
		return nil, errors.New("another key id than its key gives")
	}
	return cosigner{parts[0], binary.BigEndian.Uint32(sum[:]), key[1:]}, nil
}

type group struct {
	name    string
	needed  int
	members []string
}

type policy struct {
	log       note.Verifier
	witnesses map[string]note.Verifier
	groups    []group
	quorum    string
}

func readPolicy(path string) (*policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &policy{witnesses: map[string]note.Verifier{}}
	for _, line := range strings.Split(string(data), "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
		case words[0] == "log" && len(words) >= 2:
			p.log, err = note.NewVerifier(words[1])
		case words[0] == "witness" && len(words) >= 3:
			p.witnesses[words[1]], err = newCosigner(words[2])
		case words[0] == "group" && len(words) >= 4:
			g := group{words[1], 0, words[3:]}
			switch words[2] {
			case "any":
				g.needed = 1
			case "all":
				g.needed = len(g.members)
			default:
				g.needed, err = strconv.Atoi(words[2])
			}
			p.groups = append(p.groups, g)
		case words[0] == "quorum" && len(words) == 2:
			p.quorum = words[1]
		default:
			return nil, fmt.Errorf("policy line %q", line)
		}
		if err != nil {
			return nil, fmt.Errorf("policy line %q: %v", line, err)
		}
	}
	if p.log == nil || p.quorum == "" {
		return nil, errors.New("policy without a log or a quorum")
	}
	return p, nil
}

// open verifies a checkpoint by the policy and returns its tree.
func (p *policy) open(data []byte) (tree tlog.Tree, err error) {
	known := []note.Verifier{p.log}
	for _, w := range p.witnesses {
		known = append(known, w)
	}
	opened, err := note.Open(data, note.VerifierList(known...))
	if err != nil {
		return tree, err
	}
	met := map[string]bool{"none": true}
	byLog := false
	for _, sig := range opened.Sigs {
		byLog = byLog || sig.Name == p.log.Name() && sig.Hash == p.log.KeyHash()
		for name, w := range p.witnesses {
			if sig.Name == w.Name() && sig.Hash == w.KeyHash() {
				met[name] = true
			}
		}
	}
	for _, g := range p.groups {
		count := 0
		for _, member := range g.members {
			if met[member] {
				count++
			}
		}
		met[g.name] = count >= g.needed
	}
	if !byLog || !met[p.quorum] {
		return tree, fmt.Errorf("signed by the log: %v, quorum met: %v", byLog, met[p.quorum])
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != p.log.Name() {
		return tree, errors.New("not this log's checkpoint")
	}
	tree.N, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func checkProof(proofPath, leafPath, policyPath string) error {
	p, err := readPolicy(policyPath)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(proofPath)
	if err != nil {
		return err
	}
	leaf, err := os.ReadFile(leafPath)
	if err != nil {
		return err
	}
	head, checkpoint, ok := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "index ") {
		return errors.New("not a tlog-proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		path = append(path, h)
	}
	tree, err := p.open(checkpoint)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(leaf)); err != nil {
		return err
	}
	fmt.Printf("entry %d of %d\n", index, tree.N)
	return nil
}

type source string

func (s source) fetch(name string) ([]byte, error) {
	if !strings.HasPrefix(string(s), "http://") {
		return os.ReadFile(filepath.Join(string(s), name))
	}
	answer, err := http.Get(string(s) + "/" + name)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return nil, fmt.Errorf("%s: %s", name, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// path turns x/mod's name into that of tlog-tiles, which fixes the height and says "entries".
func path(t tlog.Tile) string {
	return strings.Replace(strings.Replace(t.Path(), "tile/8/", "tile/", 1), "tile/data/", "tile/entries/", 1)
}

func (s source) Height() int                     { return height }
func (s source) SaveTiles([]tlog.Tile, [][]byte) {}
func (s source) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, t := range tiles {
		b, err := s.fetch(path(t))
		if err != nil {
			return nil, err
		}
		data = append(data, b)
	}
	return data, nil
}

func checkTiles(from source, policyPath string, entries bool) error {
	p, err := readPolicy(policyPath)
	if err != nil {
		return err
	}
	checkpoint, err := from.fetch("checkpoint")
	if err != nil {
		return err
	}
	tree, err := p.open(checkpoint)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tree, from)
	for first := int64(0); first < tree.N; first += 1 << height {
		width := tree.N - first
		if width > 1<<height {
			width = 1 << height
		}
		var indexes []int64
		for at := int64(0); at < width; at++ {
			indexes = append(indexes, tlog.StoredHashIndex(0, first+at))
		}
		known, err := hashes.ReadHashes(indexes)
		if err != nil {
			return err
		}
		if !entries {
			continue
		}
		data, err := from.fetch(path(tlog.Tile{H: height, L: -1, N: first >> height, W: int(width)}))
		if err != nil {
			return err
		}
		for at := range known {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return errors.New("bundle cut short")
			}
			end := 2 + int(binary.BigEndian.Uint16(data))
			if tlog.RecordHash(data[2:end]) != known[at] {
				return fmt.Errorf("entry %d has another hash", first+int64(at))
			}
			data = data[end:]
		}
		if len(data) != 0 {
			return errors.New("bundle too long")
		}
	}
	fmt.Printf("all of %d\n", tree.N)
	return nil
}

func main() {
	var err error
	switch a := os.Args[1:]; {
	case len(a) == 4 && a[0] == "proof":
		err = checkProof(a[1], a[2], a[3])
	case len(a) == 3 && (a[0] == "tiles" || a[0] == "hashes"):
		err = checkTiles(source(a[1]), a[2], a[0] == "tiles")
	default:
		err = errors.New("usage: offlinecheck proof|tiles|hashes ...")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
