package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// image is one to be, as docker save writes it: a base of one tar if it has one, and programs on it.
type image struct {
	name                string
	base, busybox       string
	programs            []string
	entrypoint, command []string
}

// needless of a base is left out.
var needless = []string{"./usr/share/doc/", "./usr/share/man/", "./usr/share/locale/", "./usr/share/info/", "./var/cache/", "./var/lib/apt/", "./var/lib/dpkg/info/", "./dev/", "./proc/", "./sys/"}

func (i image) write(path string) error {
	layers := [][]byte{}
	if i.base != "" {
		layer, err := i.baseLayer()
		if err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	layer, err := i.ownLayer()
	if err != nil {
		return err
	}
	layers = append(layers, layer)

	type manifest struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var config struct {
		Architecture string                                  `json:"architecture"`
		OS           string                                  `json:"os"`
		Config       struct{ Env, Entrypoint, Cmd []string } `json:"config"`
		RootFS       struct {
			Type  string   `json:"type"`
			Diffs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	about := manifest{RepoTags: []string{i.name}}
	contents := map[string][]byte{}
	for _, layer := range layers {
		digest := digestOf(layer)
		config.RootFS.Diffs = append(config.RootFS.Diffs, "sha256:"+digest)
		about.Layers = append(about.Layers, digest+".tar")
		contents[digest+".tar"] = layer
	}
	config.Architecture, config.OS, config.RootFS.Type = architecture, "linux", "layers"
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	config.Config.Entrypoint, config.Config.Cmd = i.entrypoint, i.command
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	about.Config = digestOf(text) + ".json"
	contents[about.Config] = text
	list, err := json.Marshal([]manifest{about})
	if err != nil {
		return err
	}
	file, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	for _, name := range append([]string{about.Config}, about.Layers...) {
		if err := add(archive, tar.Header{Name: name, Mode: 0o644}, contents[name]); err != nil {
			return err
		}
	}
	if err := add(archive, tar.Header{Name: "manifest.json", Mode: 0o644}, list); err != nil {
		return err
	}
	if err := errors.Join(archive.Close(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func add(archive *tar.Writer, header tar.Header, data []byte) error {
	header.Size = int64(len(data))
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	_, err := archive.Write(data)
	return err
}

func (i image) baseLayer() ([]byte, error) {
	file, err := os.Open(i.base)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var layer bytes.Buffer
	from, to := tar.NewReader(file), tar.NewWriter(&layer)
next:
	for {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			return layer.Bytes(), to.Close()
		} else if err != nil {
			return nil, err
		}
		for _, prefix := range needless {
			if strings.HasPrefix(header.Name, prefix) {
				continue next
			}
		}
		if err := to.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.Copy(to, from); err != nil {
			return nil, err
		}
	}
}

// ownLayer has the programs in /, and busybox with its names in /bin.
func (i image) ownLayer() ([]byte, error) {
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	folders := []string{"uploads"}
	// Upstream's images have a wget that tries once; Debian's waits for a service that drops 20 times.
	files := map[string]string{"etc/wgetrc": "tries = 1\n"}
	if i.base == "" {
		folders = append(folders, "bin", "dev", "etc", "proc", "root", "sys", "tmp", "var")
		files = map[string]string{
			"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
			"etc/group":  "root:x:0:\nnogroup:x:65534:\n",
		}
	}
	for name, text := range files {
		if err := add(archive, tar.Header{Name: name, Mode: 0o644}, []byte(text)); err != nil {
			return nil, err
		}
	}
	for _, folder := range folders {
		mode := int64(0o755)
		if folder == "tmp" {
			mode = 0o1777
		}
		if err := add(archive, tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: mode}, nil); err != nil {
			return nil, err
		}
	}
	for _, path := range i.programs {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := add(archive, tar.Header{Name: filepath.Base(path), Mode: 0o755}, data); err != nil {
			return nil, err
		}
	}
	if i.busybox != "" {
		data, err := os.ReadFile(i.busybox)
		if err != nil {
			return nil, err
		}
		if err := add(archive, tar.Header{Name: "bin/busybox", Mode: 0o755}, data); err != nil {
			return nil, err
		}
		applets, err := exec.Command(i.busybox, "--list").Output()
		if err != nil {
			return nil, fmt.Errorf("%s --list: %w", i.busybox, err)
		}
		for _, applet := range strings.Fields(string(applets)) {
			if applet == "busybox" {
				continue
			}
			if err := add(archive, tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil); err != nil {
				return nil, err
			}
		}
	}
	return layer.Bytes(), archive.Close()
}
