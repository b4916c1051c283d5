// libnvrtc: compiles unmodified kernel sources by the machine's C++ compiler. What stands in for a cubin is "softgpu:",
// the size of a shared object, NVRTC's major version, and the shared object.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "faults.h"

namespace {

namespace fs = std::filesystem;

// NVRTC's result codes, as far as they are used.
enum Result { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };

struct Program {
    std::string name, source, log, code;
    std::vector<std::pair<std::string, std::string>> headers;
};

std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

// The names of all `extern "C" __global__` functions.
std::vector<std::string> kernel_names(const std::string& source) {
    const std::string mark = "extern \"C\" __global__";
    std::vector<std::string> names;
    for (size_t at = source.find(mark); at != std::string::npos; at = source.find(mark, at + 1)) {
        // void __launch_bounds__(N) name(arguments): the name is the last word before the arguments' parenthesis.
        std::string head = source.substr(at + mark.size(), source.find('{', at) - at - mark.size());
        const size_t bounds = head.find("__launch_bounds__");
        if (bounds != std::string::npos) {
            head.erase(bounds, head.find(')', bounds) + 1 - bounds);
        }
        const size_t end = head.find('(');
        const size_t begin = head.find_last_of(" \n\t*", end - 1) + 1;
        names.push_back(head.substr(begin, end - begin));
    }
    return names;
}

// The list of kernels and the bounds of their shared memory, which the module tells the device.
std::string registry(const std::vector<std::string>& names) {
    std::string text =
        "\nextern \"C\" __attribute__((weak, visibility(\"hidden\"))) unsigned char __start_softgpu_shared[], "
        "__stop_softgpu_shared[];\n"
        "extern \"C\" void softgpu_shared_bounds(unsigned char** begin, unsigned char** end) {\n"
        "    *begin = __start_softgpu_shared;\n    *end = __stop_softgpu_shared;\n}\n"
        "extern \"C\" const softgpu::Kernel softgpu_kernels[] = {\n";
    for (const std::string& name : names) {
        text += "    softgpu::Entry<" + name + ">::kernel(\"" + name + "\"),\n";
    }
    return text + "    {nullptr, nullptr, nullptr, 0}};\n";
}

// Changes the sources as SOFTGPU_PLANT says: to see that a mistake in a kernel is caught. False where it does not fit.
bool plant(Program& program) {
    const char* text = getenv("SOFTGPU_PLANT");
    if (!text) {
        return true;
    }
    std::string file, number, old, replacement;
    std::stringstream lines(text);
    for (std::string* part : {&file, &number, &old, &replacement}) {
        std::getline(lines, *part);
    }
    const auto change = [&](std::string& source) {
        size_t at = source.find(old);
        for (int left = atoi(number.c_str()); left > 1 && at != std::string::npos; --left) {
            at = source.find(old, at + 1);
        }
        if (at != std::string::npos) {
            source.replace(at, old.size(), replacement);
        }
        return at != std::string::npos;
    };
    bool fits = program.name != file || change(program.source);
    for (auto& [name, header] : program.headers) {
        fits &= name != file || change(header);
    }
    return fits;
}

// 13, or what SOFTGPU_NVRTC says.
int major_version() {
    const char* text = getenv("SOFTGPU_NVRTC");
    return text ? atoi(text) : 13;
}

Result compile(Program& program, const std::vector<std::string>& options, const fs::path& folder) {
    const char* compiler = getenv("CXX");
    std::string command = compiler && *compiler ? compiler : "g++";
    command += " -std=c++20 -O3 -march=native -fno-math-errno -fPIC -shared -w -DSOFTGPU -include '" SOFTGPU_INCLUDE_DIR
               "/softgpu.h'";
    for (const std::string& option : options) {
        const bool known = option.starts_with("--gpu-architecture=") || option.starts_with("--std=") ||
                           option == "-default-device" || option == "-lineinfo" || option.starts_with("--ptxas-options=");
        if (option.starts_with("-D")) {
            command += " '" + option + "'";
        } else if (!known) {
            program.log = "softgpu: unknown option " + option;
            return INVALID_OPTION;
        }
    }
    if (!plant(program)) {
        program.log = "softgpu: what SOFTGPU_PLANT wants to change is not there";
        return COMPILATION;
    }
    for (const auto& [name, text] : program.headers) {
        write(folder / name, text);
    }
    // Messages name the kernel's file and line.
    const std::string line = "#line 1 \"" + program.name + "\"\n";
    write(folder / "program.cpp", line + program.source + registry(kernel_names(program.source)));
    const std::string log = (folder / "log").string(), object = (folder / "program.so").string();
    command += " -I'" + folder.string() + "' -o '" + object + "' '" + (folder / "program.cpp").string() + "' >'" + log + "' 2>&1";
    const bool failed = softgpu::fault_is_due("compile", "");
    if (failed || system(command.c_str()) != 0) {
        program.log = failed ? "softgpu: this compiler was told to fail" : read(log);
        return COMPILATION;
    }
    const std::string binary = read(object);
    const size_t header[] = {binary.size(), static_cast<size_t>(major_version())};
    program.code = "softgpu:" + std::string(reinterpret_cast<const char*>(header), sizeof header) + binary;
    return SUCCESS;
}

}  // namespace

extern "C" {

Result nvrtcVersion(int* major, int* minor) {
    *major = major_version();
    *minor = 99;
    return SUCCESS;
}

// The GPUs of CUDA 13; the newest are known from 13 on.
Result nvrtcGetNumSupportedArchs(int* count) {
    *count = major_version() >= 13 ? 4 : 3;
    return SUCCESS;
}

Result nvrtcGetSupportedArchs(int* architectures) {
    int count;
    nvrtcGetNumSupportedArchs(&count);
    const int all[] = {80, 86, 90, 103};
    std::copy_n(all, count, architectures);
    return SUCCESS;
}

Result nvrtcCreateProgram(Program** program, const char* source, const char* name, int header_count,
                          const char* const* headers, const char* const* header_names) {
    *program = new Program{name ? name : "kernel.cu", source, "", "", {}};
    for (int i = 0; i < header_count; ++i) {
        (*program)->headers.emplace_back(header_names[i], headers[i]);
    }
    return SUCCESS;
}

Result nvrtcCompileProgram(Program* program, int option_count, const char* const* options) {
    std::string pattern = (fs::temp_directory_path() / "softgpu-XXXXXX").string();
    if (!mkdtemp(pattern.data())) {
        program->log = "softgpu: no temporary folder";
        return COMPILATION;
    }
    const Result result = compile(*program, {options, options + option_count}, pattern);
    std::error_code ignored;
    fs::remove_all(pattern, ignored);
    return result;
}

Result nvrtcGetProgramLogSize(Program* program, size_t* bytes) {
    *bytes = program->log.size() + 1;
    return SUCCESS;
}

Result nvrtcGetProgramLog(Program* program, char* log) {
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return SUCCESS;
}

Result nvrtcGetCUBINSize(Program* program, size_t* bytes) {
    *bytes = program->code.size();
    return SUCCESS;
}

Result nvrtcGetCUBIN(Program* program, char* code) {
    memcpy(code, program->code.data(), program->code.size());
    return SUCCESS;
}

// There is no PTX here.
Result nvrtcGetPTXSize(Program*, size_t*) { return INVALID_PROGRAM; }
Result nvrtcGetPTX(Program*, char*) { return INVALID_PROGRAM; }

Result nvrtcDestroyProgram(Program** program) {
    delete *program;
    *program = nullptr;
    return SUCCESS;
}

}  // extern "C"
