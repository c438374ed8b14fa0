package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"syscall"
)

const (
	sector    = 512
	grain     = 128 * sector
	perTable  = 512
	overhead  = 128 // sectors before the first grain
	atTheEnd  = ^uint64(0)
	endOfDisk = 0
	aTable    = 1
	directory = 2
	footer    = 3
	progress  = 4
	// From the next byte with data on.
	seekData = 3
)

// header is the beginning, and the footer, of a sparse extent.
type header struct {
	Magic, Version, Flags                       uint32
	Capacity, Grain, Descriptor, DescriptorSize uint64
	PerTable                                    uint32
	RedundantDirectory, Directory, Overhead     uint64
	Unclean                                     uint8
	Newlines                                    [4]byte
	Compression                                 uint16
	Padding                                     [433]byte
}

// encode writes a disk as ESXi sends it: grains in order, each table behind its grains, the directory and a footer at the end.
func encode(w io.Writer, disk *os.File, capacity int64) error {
	out := &stream{w: w}
	head := header{
		Magic: 0x564d444b, Version: 3, Flags: 0x30001, Capacity: uint64(capacity) / sector, Grain: grain / sector,
		Descriptor: 1, DescriptorSize: 20, PerTable: perTable, Directory: atTheEnd, Overhead: overhead,
		Newlines: [4]byte{'\n', ' ', '\r', '\n'}, Compression: 1,
	}
	out.put(head)
	out.write([]byte(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n"+
		"RW %d SPARSE \"disk.vmdk\"\n\nddb.adapterType = \"lsilogic\"\n", capacity&0xfffffff+1, capacity/sector)))
	out.pad(overhead * sector)
	tables := (capacity + grain*perTable - 1) / (grain * perTable)
	places := make([]uint32, tables)
	for i := int64(0); i < tables && out.err == nil; i++ {
		places[i] = out.table(disk, i*perTable*grain, capacity)
	}
	out.marker((uint64(len(places))*4+sector-1)/sector, directory)
	head.Directory = uint64(out.at / sector)
	out.put(places)
	out.align()
	out.marker(1, footer)
	out.put(head)
	out.marker(0, endOfDisk)
	return out.err
}

// stream counts what it writes, and remembers the first failure.
type stream struct {
	w   io.Writer
	at  int64
	err error
}

func (s *stream) write(bytes []byte) {
	if s.err == nil {
		var n int
		n, s.err = s.w.Write(bytes)
		s.at += int64(n)
	}
}

func (s *stream) put(value interface{}) {
	var out bytes.Buffer
	_ = binary.Write(&out, binary.LittleEndian, value)
	s.write(out.Bytes())
}

func (s *stream) pad(to int64) { s.write(make([]byte, to-s.at)) }

func (s *stream) align() { s.pad((s.at + sector - 1) / sector * sector) }

func (s *stream) marker(sectors uint64, kind uint32) {
	s.put(sectors)
	s.put(uint32(0))
	s.put(kind)
	s.align()
}

// table writes the grains from a place on and then their table, and gives where that is: nowhere where all are zeros.
func (s *stream) table(disk *os.File, from, capacity int64) uint32 {
	var entries [perTable]uint32
	used, told := false, false
	for i := range entries {
		at := from + int64(i)*grain
		if at >= capacity || s.err != nil {
			break
		}
		if next := nextData(disk, at); next < 0 || next >= at+grain {
			// A real host does so when it has read zeros for seconds.
			if used && !told {
				s.progress(uint64(at / sector))
				told = true
			}
			continue
		}
		content := make([]byte, grain)
		if _, err := disk.ReadAt(content, at); err != nil && err != io.EOF {
			s.err = err
			break
		}
		if len(bytes.Trim(content, "\x00")) > 0 {
			entries[i], used = uint32(s.at/sector), true
			s.grain(uint64(at/sector), content)
		}
	}
	if !used {
		return 0
	}
	s.marker(perTable*4/sector, aTable)
	place := uint32(s.at / sector)
	s.put(entries)
	return place
}

// progress says that the host is still there, and how far it is.
func (s *stream) progress(lba uint64) {
	for i := 0; i < 4; i++ {
		s.put(uint64(0))
		s.put(uint32(0))
		s.put(uint32(progress))
		s.put(lba)
		s.align()
	}
}

func (s *stream) grain(lba uint64, content []byte) {
	var packed bytes.Buffer
	pack, _ := zlib.NewWriterLevel(&packed, zlib.BestSpeed)
	_, _ = pack.Write(content)
	pack.Close()
	s.put(lba)
	s.put(uint32(packed.Len()))
	s.write(packed.Bytes())
	s.align()
}

// nextData is where the next byte of a file is that is no hole; negative where there is none.
func nextData(file *os.File, from int64) int64 {
	at, err := syscall.Seek(int(file.Fd()), from, seekData)
	if err == syscall.ENXIO {
		return -1
	}
	if err != nil {
		return from
	}
	return at
}

// checkStream refuses what ESXi refuses: anything but a whole streamOptimized disk of the right size, footer and end marker included.
func checkStream(file *os.File, size, capacity int64) error {
	var first, last header
	if size < 4*sector || read(file, 0, &first) != nil || read(file, size-2*sector, &last) != nil {
		return fmt.Errorf("%d bytes are too few", size)
	}
	end := make([]byte, sector)
	if _, err := file.ReadAt(end, size-sector); err != nil || len(bytes.Trim(end, "\x00")) > 0 {
		return fmt.Errorf("no end-of-stream marker at its end")
	}
	for _, part := range []header{first, last} {
		if part.Magic != 0x564d444b || part.Flags&0x30000 != 0x30000 || part.Compression != 1 {
			return fmt.Errorf("its header or footer is not that of a compressed disk with markers")
		}
	}
	if last.Directory == atTheEnd {
		return fmt.Errorf("its footer does not say where the directory is")
	}
	if int64(first.Capacity)*sector != capacity || first.Capacity != last.Capacity {
		return fmt.Errorf("it is a disk of %d bytes, and %d are wanted", first.Capacity*sector, capacity)
	}
	return nil
}

func read(file *os.File, at int64, into *header) error {
	return binary.Read(io.NewSectionReader(file, at, sector), binary.LittleEndian, into)
}

// allocated is how many bytes a file takes.
func allocated(file string) int64 {
	var stat syscall.Stat_t
	if err := syscall.Stat(file, &stat); err != nil {
		return 0
	}
	return stat.Blocks * 512
}
