// tilecheck reads a folder of tiles with golang.org/x/mod/sumdb/tlog, for the tests to compare.
//
// It reads one JSON request on standard input. From the folder it verifies every hash tile up to
// the given root, proves every asked entry, and compares every entry with its leaf hash. It also
// builds all tiles of the log by itself, from the entries alone. It shares no code with Consilium.
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

type request struct {
	Folder string
	Size   int64
	Root   []byte
	Prove  []int64
	Leaves [][]byte // to build tiles from
}

type answer struct {
	Error  string            `json:"error"`
	Read   int64             `json:"read"`
	Proofs [][][]byte        `json:"proofs"`
	Built  map[string][]byte `json:"built"`
}

// path turns x/mod's name into that of tlog-tiles, which fixes the height and says "entries".
func path(t tlog.Tile) string {
	return strings.Replace(strings.Replace(t.Path(), "tile/8/", "tile/", 1), "tile/data/", "tile/entries/", 1)
}

type folder string

func (f folder) Height() int                     { return height }
func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, t := range tiles {
		b, err := f.read(t)
		if err != nil {
			return nil, err
		}
		data = append(data, b)
	}
	return data, nil
}

func (f folder) read(t tlog.Tile) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), path(t)))
}

func unframe(data []byte) ([][]byte, error) {
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New("bundle cut short")
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:end])
		data = data[end:]
	}
	return entries, nil
}

func check(r request, out *answer) error {
	tree := tlog.Tree{N: r.Size}
	if copy(tree.Hash[:], r.Root) != tlog.HashSize {
		return errors.New("root is not 32 bytes")
	}
	hashes := tlog.TileHashReader(tree, folder(r.Folder))
	root, err := tlog.TreeHash(r.Size, hashes)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return errors.New("another root")
	}
	for first := int64(0); first < r.Size; first += 1 << height {
		width := r.Size - first
		if width > 1<<height {
			width = 1 << height
		}
		data, err := folder(r.Folder).read(tlog.Tile{H: height, L: -1, N: first >> height, W: int(width)})
		if err != nil {
			return err
		}
		entries, err := unframe(data)
		if err != nil || int64(len(entries)) != width {
			return fmt.Errorf("bundle %d: %d entries, %v", first>>height, len(entries), err)
		}
		var indexes []int64
		for at := range entries {
			indexes = append(indexes, tlog.StoredHashIndex(0, first+int64(at)))
		}
		known, err := hashes.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for at, entry := range entries {
			if tlog.RecordHash(entry) != known[at] {
				return fmt.Errorf("entry %d has another hash", first+int64(at))
			}
			out.Read++
		}
	}
	for _, index := range r.Prove {
		proof, err := tlog.ProveRecord(r.Size, index, hashes)
		if err != nil {
			return err
		}
		nodes := [][]byte{}
		for _, h := range proof {
			h := h
			nodes = append(nodes, h[:])
		}
		out.Proofs = append(out.Proofs, nodes)
	}
	return nil
}

func build(leaves [][]byte) (map[string][]byte, error) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, i := range indexes {
			found = append(found, stored[i])
		}
		return found, nil
	})
	for at, leaf := range leaves {
		hashes, err := tlog.StoredHashes(int64(at), leaf, reader)
		if err != nil {
			return nil, err
		}
		stored = append(stored, hashes...)
	}
	built := map[string][]byte{}
	for _, t := range tlog.NewTiles(height, 0, int64(len(leaves))) {
		data, err := tlog.ReadTileData(t, reader)
		if err != nil {
			return nil, err
		}
		built[path(t)] = data
	}
	return built, nil
}

func main() {
	var r request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out := answer{Proofs: [][][]byte{}}
	if err := check(r, &out); err != nil {
		out.Error = err.Error()
	}
	built, err := build(r.Leaves)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out.Built = built
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
