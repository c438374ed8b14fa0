# A guest in one boot sector: proves with 512 bytes that a disk boots, and what it held when it was frozen.
#
# It reads its greeting from sector 2048 (a text that ends in a zero byte), counts its boots in sector 4096, and then,
# about nine times a second for ever (each costs an emulated processor 3 ms), adds one to counter `a` and writes the
# sector first to 4096, then to 4104, then, where there is one, to sector 4096 of the second disk. So at any instant `c
# <= b <= a <= c + 1`, and a disk image that breaks this is not a point in time. About once a second it prints
# `<greeting><boots in hex>` on the first serial port, so that whoever opens the console late still sees it.
#
# The counter sector: 32 bits little-endian `count` at 0, `boots` at 4.

.code16
.globl _start
.set GREETING, 0x8200
.set COUNTER, 0x8000

_start:
        cli
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        sti
        mov %dl, boot_drive
        # 8250: 115200 baud, 8 bits, no parity, one stop bit, no interrupts.
        mov $0x3f9, %dx
        xor %al, %al
        out %al, %dx
        mov $0x3fb, %dx
        mov $0x80, %al
        out %al, %dx
        mov $0x3f8, %dx
        mov $1, %al
        out %al, %dx
        inc %dx
        xor %al, %al
        out %al, %dx
        mov $0x3fb, %dx
        mov $3, %al
        out %al, %dx

        mov boot_drive, %dl
        mov $2048, %ebx
        mov $GREETING, %di
        call read
        mov $4096, %ebx
        mov $COUNTER, %di
        call read
        incl COUNTER + 4

say:    mov $GREETING, %si
        call print
        mov COUNTER + 4, %eax
        call print_hex
        mov $newline, %si
        call print
        mov $9, %bp

count:  incl COUNTER
        mov boot_drive, %dl
        mov $COUNTER, %di
        mov $4096, %ebx
        call write
        mov $4104, %ebx
        call write
        inc %dl                         # The second disk, if any: a failure is no matter.
        mov $4096, %ebx
        mov $0x43, %ah
        call transfer
        hlt                             # Two ticks of the timer, of which there are 18.2 a second.
        hlt
        dec %bp
        jnz count
        jmp say

# Sector ebx of drive dl to or from di.
read:   mov $0x42, %ah
        jmp checked
write:  mov $0x43, %ah
checked:
        call transfer
        jc failed
        ret
transfer:
        mov %di, packet + 4
        mov %ebx, packet + 8
        xor %al, %al
        mov $packet, %si
        push %dx
        push %di
        int $0x13
        pop %di
        pop %dx
        ret

failed: mov $disk_error, %si
        call print
        cli
        hlt

print:  lodsb
        test %al, %al
        jz 1f
        call print_char
        jmp print
1:      ret

print_char:
        push %ax
        mov $0x3fd, %dx
1:      in %dx, %al
        test $0x20, %al
        jz 1b
        pop %ax
        mov $0x3f8, %dx
        out %al, %dx
        ret

print_hex:
        mov $8, %cx
1:      rol $4, %eax
        push %ax
        and $15, %al
        add $'0', %al
        cmp $'9', %al
        jbe 2f
        add $7, %al
2:      call print_char
        pop %ax
        loop 1b
        ret

newline:        .asciz "\r\n"
disk_error:     .asciz "DISK-ERROR\r\n"
boot_drive:     .byte 0
.balign 4
packet: .byte 16, 0, 1, 0               # One sector; segment:offset and sector follow.
        .word 0, 0
        .long 0, 0
.org 440                                # The partition table of an MBR starts here.
.org 510
.word 0xaa55
